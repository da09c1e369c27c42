"""Scripts as calls: what goes before their arguments, when they count as confirmed, their errors.

Every write is a script that always writes, followed by WAIT on the same connection in the same
exchange: confirmed means that the primary and a replica have it in memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aggregator.store.connection import Refusal
from aggregator.store.keys import Keys
from aggregator.store.primary import Primary, refused
from aggregator.store.records import FORMAT, identity_text, unpack_fence
from aggregator.store.scripts import scripts
from aligned.errors import Deposed, StateDamaged, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aggregator.journal.format import Fence
    from aggregator.store.connection import Argument, Reply
    from aggregator.store.discovery import Discovery
    from aligned.model import Identity

WAIT_MILLISECONDS = 500
"""For a replica to have the write. The server looks at its clock every 100 ms only."""


class Unconfirmed(StoreUnavailable):
    """The primary has the write, but too few of its replicas said in time that they have it too.

    Attributes:
        reply: What the script returned.
    """

    def __init__(self, reply: Reply, copies: str) -> None:
        super().__init__(f"{copies} replicas confirmed the write; check replication")
        self.reply = reply


class Calls:
    """Runs scripts on the primary and keeps the highest fence that any of them showed.

    Resource handling: ``aclose`` it.
    """

    def __init__(
        self,
        discovery: Discovery,
        identity: Identity,
        *,
        fence: Fence,
        learned: Callable[[Fence], None],
        copies: int,
        reads: int = FORMAT,
    ) -> None:
        """See ``RedisStore``."""
        self.keys = Keys.of(identity)
        self.fence = fence
        self.unconfirmed = 0
        self._identity = identity_text(identity)
        self._copies = copies
        self._reads = reads
        self._learned = learned
        self.primary = Primary(discovery, check=lambda: self._command("identity"))

    async def write(self, name: str, *arguments: Argument) -> Reply:
        """Run a script and have what it wrote confirmed.

        Raises:
            StoreUnavailable: Not confirmed in time. It may be written all the same.
            Unconfirmed: The same; it is written.
            StateMismatch: The store holds another deployment's state.
            Deposed: The fence refuses it. Nothing was written.
            StateDamaged: An outbox row has other bytes. Nothing was written.
        """
        wait = ("WAIT", self._copies, WAIT_MILLISECONDS)
        reply, copies = await self._call(name, arguments, wait)
        if not isinstance(copies, int) or copies < self._copies:
            self.unconfirmed += 1
            raise Unconfirmed(reply, f"{copies!r} of {self._copies}")
        return reply

    async def run(self, name: str, *arguments: Argument) -> Reply:
        """Run a script; nobody confirms it. Same errors as ``write``."""
        [reply] = await self._call(name, arguments)
        return reply

    async def _call(
        self, name: str, arguments: Sequence[Argument], *more: Sequence[Argument]
    ) -> list[Reply]:
        replies = await self.primary.call(self._command(name, *arguments), *more)
        if isinstance(replies[0], Refusal) and replies[0].code == "NOSCRIPT":
            load = ("SCRIPT", "LOAD", scripts()[name].text)
            _, *replies = await self.primary.call(load, self._command(name, *arguments), *more)
        if isinstance(replies[0], Refusal):
            raise self._error(replies[0])
        return replies

    def _command(self, name: str, *arguments: Argument) -> tuple[Argument, ...]:
        script = ("EVALSHA", scripts()[name].digest, 1, self.keys.prefix)
        return (*script, self._identity, self._reads, *self.fence, *arguments)

    def _error(self, refusal: Refusal) -> Exception:
        if refusal.code == "FENCED":
            term, _, holder = refusal.text.partition(" ")
            self.learn(unpack_fence(term.encode(), holder.encode()))
            return Deposed(f"the fence is at term {term}, held by {holder or 'nobody'}")
        if refusal.code == "DAMAGED":
            return StateDamaged(
                "the outbox of the store holds another transaction under the same sender, nonce "
                "and attempt; someone else signs with this key or writes to this store"
            )
        return refused(refusal)

    async def read(self, *commands: Sequence[Argument]) -> list[Reply]:
        """Send plain commands and return their replies in order.

        Raises:
            StoreUnavailable: No answer in time, or one is refused.
            StateMismatch: The store holds another deployment's state.
        """
        replies = await self.primary.call(*commands)
        for reply in replies:
            if isinstance(reply, Refusal):
                error = refused(reply)
                raise error
        return replies

    def learn(self, fence: Fence) -> None:
        """Keep ``fence`` if it is higher than what is known."""
        if fence.term > self.fence.term:
            self.fence = fence
            self._learned(fence)

    async def aclose(self) -> None:
        """Close what is open. Repeats are free."""
        await self.primary.aclose()
