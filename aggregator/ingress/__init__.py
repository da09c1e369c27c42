"""Where operators' connections end.

::

    server.py      the port: listens, sweeps, drains
    connection.py  one connection: bytes -> calls -> receiver, answers -> bytes
    census.py      who is connected, who goes at a limit
    shared.py      what connections have in common: pause, joint flush, counters
    proxy.py       pure: the PROXY protocol of load balancers
    sockets.py     options of sockets
    statistics.py  counters
"""
