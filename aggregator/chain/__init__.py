"""The daemon's dealings with the chain: operators' keys and stakes, signers, transactions."""
