"""BLS over BN254 as the contract checks it: signatures in G1, keys in G2."""
