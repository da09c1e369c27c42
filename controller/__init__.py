"""The controller: one ``AlignedAggregator`` resource becomes a running group, and stays one.

The flow of one pass, for one resource:

* ``handlers``: watch events become keys in a ``queue``; nothing else of an event is believed
* ``workers``: keys become passes, while this replica is the one to work (``lead``); a list every
  few minutes finds what events missed
* ``reconcile``: read the resource, parse (``api``), ``observe`` what runs, render (``desired``),
  ``apply`` what differs and prune, decide the next step of a roll (``rollout``), report
  (``status``)

Pure: ``api``, ``names``, ``observed``, ``views`` (objects as what they mean), ``desired``,
``compare`` and ``contest`` (what differs, and who keeps changing it back), ``volumes``,
``rollout``, ``conditions`` and ``status``. Edges: ``kube`` (the API server), ``observe``
(replicas' ``/status``), ``events``, ``handlers`` (kopf), ``lead`` (our own Lease).

``redis_node`` is not part of that flow: its small programs run in the pods of a managed Redis.
"""
