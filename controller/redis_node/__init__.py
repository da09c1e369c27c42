"""Programs of a managed Redis: how a pod of the group starts and stops.

A pod is a server and a Sentinel, all in memory. ``redis-node start`` runs as its init step and
writes the configuration of both into an empty directory that the pod's containers share, at every
start of the pod anew; only the Sentinel's id is always the same. So a changed address or password
needs a restart and nothing else, and nobody ever sends ``SENTINEL RESET``.

**Who is primary** (``rule``): the other Sentinels are asked, for 10 s at most.

* They name another: it is followed as soon as both agree, or one does and the other is starting.
* They name this pod: it was the primary and came back, empty, before they noticed. It stays away
  until they have promoted another, which has everything. Nobody is told to fail over: a forced
  failover asks for no votes, and could meet the Sentinels' own at the same epoch. If after 10 s
  they still name this pod, no replica is fit; it starts as the primary. It is empty, and the
  aggregators' journals fill it again: a new ``master_replid`` has them merge.
* Nobody answers for 10 s, or all others are starting as well: pod 0 is primary, by configuration
  epoch 0. A primary other than pod 0 is made by votes of Sentinels only, which raise the epoch, and
  the epoch is handed on to Sentinels that start. So if pods that could not see each other disagree,
  the higher epoch is right, and Sentinels tell each other when they meet: each knows all addresses
  from the start. A group that starts without its pod 0 elects another in the same way.

**Hairpin**: a pod announces the address of its own Service, and its own Sentinel watches it there.
Before anything else the init step listens on the Sentinel's port, answers everybody that it is
starting, and connects to itself through the Service. Where the network lacks that way it ends with
a message that says so, and the pod does not start.

**Containers that restart alone** do not run the init step. A Sentinel goes on with its file, which
it keeps up to date itself. A server's memory is empty; ``server.sh`` asks the Sentinels and waits
by the same rule: what is followed is what they name now, not what the file says, and a former
primary stays away until another was promoted, for 10 s at most.

**Stop** (``stop.sh``, before the server is asked to end): a primary hands over without losing a
write, by ``SENTINEL FAILOVER … COORDINATED`` where the server knows it (Valkey 9), else by pausing
writes until replicas have everything. Its Sentinel stays until then (``hold.sh``).

The contract between the controller, which renders the ConfigMap and the Secret, and this package,
which may be of another release: ``nodes`` has a line per ordinal, address and Sentinel id; the four
templates have the placeholders of ``render``; the Secret has a file per user; scripts get the
directory as their argument and find ``node.sh`` in it.
"""
