"""A local Aligned to try the aggregator on: chain, contracts, operators, batcher, faults."""
