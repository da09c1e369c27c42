"""The daemon: collects operators' signatures and answers for each batch on chain.

A signature's way in, on every replica::

    ingress/    socket -> call
    receive.py  checks that cost nothing, duplicates, holding back what is not known yet
    verify.py   BLS verdicts in groups
    commit.py   memory -> journal (fsync) -> store -> acknowledged

A batch's way out, on the leader::

    watch.py        chain -> batches that wait for an answer, operators, what was answered
    quorum.py       pure: stakes and signers -> fire now, at a time, or not yet
    certificate.py  pure: signatures -> the contract's argument
    submit.py       simulate -> sign -> persist -> send -> mined -> final
    lead.py         the scope of one term: leader's work lives inside it and carries its number
    sweep.py        forgets what the chain has finalized

State: batches.py (memory), journal/ (disk), store/ (shared between replicas).
Machinery: chain/ (registry, transactor, signers), leadership/ (terms), telemetry/.
app.py puts it together; settings.py is the configuration; cli.py the command line.
"""
