"""Names of the keys in Redis, all under one hash tag: pure.

One tag keeps every script within one slot of a cluster. Scripts get ``prefix`` as their only key
and append the names below; ids are appended as raw bytes.

=====================  ======  ================================================================
``meta``               hash    ``identity`` (text for people, compared whole), ``format``
``fence``              hash    ``term``, ``holder``: whose writes count
``open``               set     batch ids that have signatures
``batch:`` + id        hash    operator id → signature (64 bytes: a small hash stays packed)
``conflict:`` + id     hash    operator id → a second signature, of which one is wrong
``refuted:`` + id      hash    operator id ‖ signature → empty: never taken again
``outbox``             hash    sender ‖ nonce ‖ attempt → row
``log``                stream  what was new, for peers; capped
``members``            hash    pod → milliseconds of its last beat, slash, highest format it
                               reads, space, facts
``election``           hash    the lock of the Redis election
=====================  ======  ================================================================

Nothing has a time to live: signatures go when the chain says so, and the rest is small.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aligned.model import BatchId, Identity

LOG_LENGTH = 2000
"""Records the stream keeps, roughly. Who was away for longer catches up by the periodic union."""

COMMANDS = (
    *("info", "wait", "evalsha", "script|load", "client|setname"),
    *("smembers", "hgetall", "hvals", "xread"),
    *("hmget", "hset", "hget", "hdel", "hexists", "exists", "sadd", "srem", "del", "xadd", "time"),
)
"""What our user may do, for an ACL: ``~{…}:* -@all +info +wait …``; scripts run with it."""

SENTINEL_COMMANDS = (
    *("client|setname", "subscribe"),
    *("sentinel|master", "sentinel|get-master-addr-by-name"),
)
"""The same for Sentinels; also ``&+switch-master``."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Key names of one deployment."""

    prefix: bytes
    """Begins every key; ends with a colon, so that an ACL pattern ``{…}:*`` matches it too."""

    @classmethod
    def of(cls, identity: Identity) -> Keys:
        """Return the names for a chain and contract.

        The rest of the identity is not in the name: state of a re-created chain must be found
        and refused, not overlooked.
        """
        return cls(
            b"{aligned:%d:%s}:" % (identity.chain_id, identity.service_manager.hex().encode())
        )

    @property
    def open(self) -> bytes:
        return self.prefix + b"open"

    @property
    def outbox(self) -> bytes:
        return self.prefix + b"outbox"

    @property
    def log(self) -> bytes:
        return self.prefix + b"log"

    def batch(self, batch_id: BatchId) -> bytes:
        """Name the signatures of a batch."""
        return self.prefix + b"batch:" + batch_id
