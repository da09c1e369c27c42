"""The Aligned protocol as a library: what every program of this project speaks.

::

    model.py    the nouns: batch, response, operator, operator set
    errors.py   what can go wrong, by who must act
    wire/       Go net/rpc with gob: bytes <-> calls (no sockets)
    bls/        BN254: message points, individual verdicts, the contract's own check
    chain/      events, call data, reverts; Ethereum endpoints with failover
    telemetry/  log lines, probes: the form in which every program is watched

Imports none of the other packages.
"""
