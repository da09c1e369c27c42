"""What this replica keeps on its own disk."""
