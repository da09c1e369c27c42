"""What an election by the store asks of the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aligned.model import Term


class Peer(Protocol):
    """A replica as it described itself."""

    @property
    def pod(self) -> str: ...

    @property
    def age(self) -> float:
        """Seconds since then."""

    @property
    def facts(self) -> bytes: ...


class Beaten(Protocol):
    """What a beat brings back."""

    @property
    def members(self) -> Iterable[Peer]: ...


class Claims(Protocol):
    """What the store does for leadership; see ``RedisStore`` and ``Store.claim``."""

    @property
    def known_fence(self) -> tuple[int, str]: ...

    @property
    def is_outbox_readable(self) -> bool: ...

    async def beat(self, pod: str, facts: bytes) -> Beaten: ...

    async def claim(self, term: Term, holder: str) -> object: ...

    async def confirm(self, term: Term, holder: str) -> None: ...
