"""The controller: one ``AlignedAggregator`` resource becomes a running group, and stays one.

The flow of one pass, for one resource:

* ``handlers``: watch events become keys in a ``queue``; nothing else of an event is believed
* ``reconcile``: read the resource, parse (``api``), ``observe`` what runs, render (``desired``),
  ``apply`` what differs and prune, decide the next step of a roll (``rollout``), report
  (``status``)

Pure: ``api``, ``names``, ``observed``, ``desired``, ``rollout``, ``status``. Edges: ``kube`` (the
API server), ``observe`` (replicas' ``/status``), ``handlers`` (kopf), ``lead`` (our own Lease).

``redis_node`` is not part of that flow: its small programs run in the pods of a managed Redis.
"""
