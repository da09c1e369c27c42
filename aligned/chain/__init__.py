"""The chain as Aligned's contracts use it.

::

    abi, calldata, events, reverts    pure: what bytes of the contracts mean
    rpc, jsonrpc                      the port ``Rpc``; JSON-RPC bodies, pure
    transport, endpoint, endpoints    edge: HTTP, one endpoint, ``Rpc`` over several of them
    logs, history, blocks, deployment questions to ``Rpc``: events, headers, addresses
    provider                          web3.py over ``Rpc``
"""
