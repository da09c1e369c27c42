"""Programs that come from npm: the chain (anvil) and the Solidity compiler (solc)."""
