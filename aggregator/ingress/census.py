"""Who is connected, and who goes when another one comes over a limit."""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol


class Guest(Protocol):
    """A connection as the census sees it; hashed by identity."""

    def evict(self) -> None:
        """Close at once."""


class Census:
    """Counts connections and keeps the idle ones in order of last use.

    A new connection is never refused while an idle one can go for it: operators' clients dial
    again at their next call, but one that cannot dial loses signatures.
    """

    def __init__(self, limit: int, limit_per_source: int | None) -> None:
        self._limit = limit
        self._limit_per_source = limit_per_source
        self._hosts: dict[Guest, str | None] = {}
        self._count_by_host: dict[str, int] = {}
        self._idle: OrderedDict[Guest, None] = OrderedDict()

    def limit_to(self, limit: int) -> None:
        """Take no more than so many from now on."""
        self._limit = limit

    def arrive(self, guest: Guest) -> bool:
        """Count ``guest``, idle at first; tell whether there was or could be made room for it."""
        if len(self._hosts) >= self._limit and not self._evict(None):
            return False
        self._hosts[guest] = None
        self._idle[guest] = None
        return True

    def locate(self, guest: Guest, host: str) -> bool:
        """Note where ``guest`` comes from, and tell as ``arrive`` does."""
        if self._limit_per_source is None:
            return True
        here = self._count_by_host.get(host, 0)
        if here >= self._limit_per_source and not self._evict(host):
            return False
        self._hosts[guest] = host
        self._count_by_host[host] = self._count_by_host.get(host, 0) + 1
        return True

    def _evict(self, host: str | None) -> bool:
        for guest in self._idle:
            if host is None or self._hosts[guest] == host:
                self.leave(guest)
                guest.evict()
                return True
        return False

    def busy(self, guest: Guest) -> None:
        """Keep ``guest``: it has calls pending."""
        self._idle.pop(guest, None)

    def rest(self, guest: Guest) -> None:
        """Let ``guest`` go if need be, after all others that rest now."""
        if guest in self._hosts:
            self._idle[guest] = None
            self._idle.move_to_end(guest)

    def leave(self, guest: Guest) -> None:
        """Forget ``guest``; repeats do not matter."""
        self._idle.pop(guest, None)
        host = self._hosts.pop(guest, None)
        if host is not None:
            self._count_by_host[host] -= 1
            if not self._count_by_host[host]:
                del self._count_by_host[host]
