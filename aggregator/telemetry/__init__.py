"""What the daemon shows: logs, metrics, probes, status."""
