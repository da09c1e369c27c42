"""What the controller shows: log lines, metrics, probes."""
