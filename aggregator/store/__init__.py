"""What replicas share, and the fence that a leader's writes must pass."""
