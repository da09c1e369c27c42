"""A local Aligned to try the aggregator on: chain, contracts, operators, batcher, faults.

::

    anvil.py       the chain: a process of ours (process.py) and its switches, over rpc.py
    contracts/     our contracts, with the names, events, reverts and fees of the real ones
    network.py     a deployment: operators, stakes, the owner's switches, what was answered
    keys.py        operators' BLS keys from a seed
    operator.py    simulated operators over go_client.py, which retries as the Go operator does
    misbehave.py   responses that are wrong in one way each
    batcher.py     posts batches, waits for answers
    proxy.py       JSON-RPC faults (faults.py) between aggregator and chain
    relay.py       TCP faults between anything
    daemon.py      the aggregator as a child process
    load.py        load and its measurement
    files.py       deployment JSONs, keystore, configuration
    running.py     all of it for a person: python -m devnet
    node/          npm packages: anvil, solc
"""
