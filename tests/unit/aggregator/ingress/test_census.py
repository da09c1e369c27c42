from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from aggregator.ingress.census import Census

LIMIT = 4
PER_SOURCE = 2


class Visitor:
    """A connection that leaves when it is asked to."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.evicted = False

    def evict(self) -> None:
        self.evicted = True


class CensusMachine(RuleBasedStateMachine):
    """Compares the census with a list in order of use."""

    def __init__(self) -> None:
        super().__init__()
        self.census = Census(LIMIT, PER_SOURCE)
        self.here: list[Visitor] = []
        self.working: set[Visitor] = set()

    def idle(self, host: str | None = None) -> list[Visitor]:
        return [
            guest for guest in self.here if guest not in self.working and host in {None, guest.host}
        ]

    @rule(host=st.sampled_from("abc"))
    def arrive(self, host: str) -> None:
        guest = Visitor(host)
        expected = self.idle()[:1] if len(self.here) >= LIMIT else []
        room = len(self.here) < LIMIT or bool(expected)
        assert self.census.arrive(guest) is room
        self.check_gone(expected)
        if not room:
            return
        self.here.append(guest)
        neighbours = [other for other in self.here[:-1] if other.host == host]
        expected = self.idle(host)[:1] if len(neighbours) >= PER_SOURCE else []
        if expected == [guest]:
            expected = []
        located = self.census.locate(guest, host)
        assert located is (len(neighbours) < PER_SOURCE or bool(expected))
        self.check_gone(expected)
        if not located:
            self.census.leave(guest)
            self.here.remove(guest)

    def check_gone(self, expected: list[Visitor]) -> None:
        assert all(guest.evicted for guest in expected)
        self.here = [guest for guest in self.here if guest not in expected]

    @rule(data=st.data())
    def work(self, data: st.DataObject) -> None:
        if self.here:
            guest = data.draw(st.sampled_from(self.here))
            self.working.add(guest)
            self.census.busy(guest)

    @rule(data=st.data())
    def rest(self, data: st.DataObject) -> None:
        if self.here:
            guest = data.draw(st.sampled_from(self.here))
            self.working.discard(guest)
            self.here.remove(guest)
            self.here.append(guest)
            self.census.rest(guest)

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        if self.here:
            guest = data.draw(st.sampled_from(self.here))
            self.here.remove(guest)
            self.census.leave(guest)
            self.census.leave(guest)
            self.census.rest(guest)

    @invariant()
    def nobody_else_was_evicted(self) -> None:
        assert not any(guest.evicted for guest in self.here)
        assert len(self.here) <= LIMIT


TestCensus = CensusMachine.TestCase
