"""The chain side of the protocol: events, call data, reverts, endpoints with failover."""
