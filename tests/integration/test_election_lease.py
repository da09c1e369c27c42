"""Replicas over a Lease, and everything an API server does to them."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from aggregator.leadership.kubernetes import KubernetesLock, LeaseAt
from tests.fakes.candidates import FenceInMemory, Replica
from tests.fakes.lease_server import NAME, NAMESPACE, LeaseServer
from tests.fakes.redis import until


@pytest.fixture
def server() -> Iterator[LeaseServer]:
    with LeaseServer() as running:
        yield running


@pytest.fixture
def shared() -> FenceInMemory:
    return FenceInMemory()


def a_replica(pod: str, server: LeaseServer, shared: FenceInMemory, folder: Path) -> Replica:
    token = folder / f"{pod}.token"
    token.write_text(f"{pod}\n")
    at = LeaseAt(server=server.url, namespace=NAMESPACE, name=NAME, token_file=token)
    return Replica(pod, lambda: KubernetesLock(at), shared)


@pytest.fixture
async def replicas(
    server: LeaseServer, shared: FenceInMemory, tmp_path: Path
) -> AsyncIterator[Sequence[Replica]]:
    """Three, the first of which leads."""
    async with AsyncExitStack() as stack:
        started = []
        for pod in ("pod-0", "pod-1", "pod-2"):
            one = a_replica(pod, server, shared, tmp_path)
            started.append(await stack.enter_async_context(one.running()))
            await until(lambda: started[0].leads, "the first one leads")
        await until(lambda: all(len(peers(one)) == 2 for one in started), "all know all as fit")
        yield started


def peers(one: Replica) -> frozenset[str]:
    return one.leadership.peers


def leading(replicas: Sequence[Replica]) -> list[str]:
    return [one.pod for one in replicas if one.leads]


async def another_leads(replicas: Sequence[Replica], than: Replica) -> Replica:
    """Wait until another one leads and ``than`` does not."""
    await until(
        lambda: not than.leads and len(leading(replicas)) == 1, f"another than {than.pod} leads"
    )
    return next(one for one in replicas if one.leads)


def in_order(shared: FenceInMemory) -> bool:
    """Terms of effects rise, each with one holder."""
    terms = [term for term, _ in shared.effects]
    return terms == sorted(set(terms))


async def test_terms_begin_above_the_lease_and_the_fence(
    server: LeaseServer, shared: FenceInMemory, tmp_path: Path
) -> None:
    server.create(term=4)
    shared.fence = (40, "somebody of the past")
    async with a_replica("pod-0", server, shared, tmp_path).running() as one:
        await until(lambda: one.leads, "it leads")
        assert (server.holder, server.term) == ("pod-0 boot", 41)
        assert server.annotation("lease-milliseconds") == "1500"
        assert server.lease["spec"]["leaseDurationSeconds"] == 2
        assert server.lease["metadata"]["labels"] == {"app": "demo"}
    assert (server.holder, server.term) == ("", 41)


async def test_a_clean_stop_gives_the_lease_up_after_the_work(
    server: LeaseServer, shared: FenceInMemory, tmp_path: Path
) -> None:
    first, second = (a_replica(pod, server, shared, tmp_path) for pod in ("pod-0", "pod-1"))
    async with second.running():
        await until(lambda: second.leads, "the second leads first")
        async with first.running():
            pass
        assert second.leads
    assert first.log == []
    assert second.log == ["begin 1", "end 1"]
    assert server.history == [("", 0), ("pod-1 boot", 1), ("", 1)]


async def test_a_leader_cut_off_from_the_api_server_is_replaced_and_cannot_act(
    server: LeaseServer, shared: FenceInMemory, replicas: Sequence[Replica]
) -> None:
    server.hang_for = {"pod-0"}
    successor = await another_leads(replicas, replicas[0])
    assert successor.term == 2
    assert shared.fence == (2, successor.me)
    assert in_order(shared)
    server.hang_for = set()
    await until(lambda: server.tokens[-50:].count("pod-0") > 0, "the old one is back")
    assert leading(replicas) == [successor.pod]


async def test_a_leader_cut_off_from_the_store_gives_the_lease_up(
    server: LeaseServer, shared: FenceInMemory, replicas: Sequence[Replica]
) -> None:
    replicas[0].claims.away = True
    successor = await another_leads(replicas, replicas[0])
    assert server.history[1:4] == [("pod-0 boot", 1), ("", 1), (successor.me, 2)]
    assert in_order(shared)


@pytest.mark.parametrize("lost", ["head_age", "signs"])
async def test_a_leader_that_cannot_answer_on_chain_gives_the_lease_up(
    lost: str, server: LeaseServer, replicas: Sequence[Replica]
) -> None:
    setattr(replicas[0], lost, 60.0 if lost == "head_age" else False)
    await another_leads(replicas, replicas[0])
    assert ("", 1) in server.history


@pytest.mark.parametrize("unread", ["operators", "window"])
async def test_who_has_not_read_the_chain_leaves_the_lead_to_who_has(
    unread: str, server: LeaseServer, shared: FenceInMemory, tmp_path: Path
) -> None:
    fresh, full = (a_replica(pod, server, shared, tmp_path) for pod in ("pod-0", "pod-1"))
    setattr(fresh, unread, False)
    async with fresh.running():
        await until(lambda: "not read" in (fresh.leadership.unfit or ""), "it says what it lacks")
        async with full.running():
            await until(lambda: full.leads, "the other leads")
            await until(lambda: peers(fresh) == {"pod-1"}, "they know of each other")
            assert not peers(full)
        assert server.history == [("", 0), ("pod-1 boot", 1), ("", 1)]
        setattr(fresh, unread, True)  # nobody could answer before
        await until(lambda: fresh.leads, "it leads")


async def test_a_leader_whose_main_loop_hangs_gives_the_lease_up_meanwhile(
    server: LeaseServer, shared: FenceInMemory, replicas: Sequence[Replica]
) -> None:
    assert leading(replicas) == ["pod-0"]
    threading.Event().wait(2.0)  # the main loop of all three hangs
    # Whoever's beat is younger by a moment may take it in between, and gives it up as well.
    assert server.history[:3] == [("", 0), ("pod-0 boot", 1), ("", 1)]
    assert server.history[-1][0] == ""
    await until(lambda: len(leading(replicas)) == 1 and server.term == 2, "somebody leads again")
    assert in_order(shared)


@pytest.mark.parametrize("status", [None, 401, 403, 404, 429, 500, 503])
async def test_a_healthy_leader_goes_on_without_the_api_server(
    status: int | None, server: LeaseServer, shared: FenceInMemory, replicas: Sequence[Replica]
) -> None:
    server.hang, server.status = status is None, status
    elector = replicas[0].leadership._elector
    assert elector is not None
    renewed = elector._view.renewed
    await until(lambda: elector.beat > renewed + 2.0, "the lease has run out")
    assert elector._view.renewed < renewed + 0.5
    assert replicas[0].log == ["begin 1"]
    server.hang, server.status = False, None
    await until(lambda: elector._view.renewed > renewed + 2.0, "it renews again")
    assert replicas[0].log == ["begin 1"]
    assert shared.effects == [(1, "pod-0 boot")]


async def test_without_both_the_work_is_suspended_and_goes_on_in_the_same_term(
    server: LeaseServer, shared: FenceInMemory, replicas: Sequence[Replica]
) -> None:
    leader = replicas[0]
    server.hang = True
    leader.claims.away = True
    await until(lambda: leader.log == ["begin 1", "end 1"], "the work is suspended")
    assert not leader.leadership.standing.active
    assert leader.leadership.standing.term == 1
    leader.claims.away = False
    await until(lambda: leader.log == ["begin 1", "end 1", "begin 1"], "the work goes on")
    server.hang = False
    assert shared.claims == [(1, "pod-0 boot")]


async def test_a_suspended_leader_that_was_replaced_ends(
    server: LeaseServer, shared: FenceInMemory, replicas: Sequence[Replica]
) -> None:
    leader = replicas[0]
    server.hang_for = {"pod-0"}
    leader.claims.away = True
    successor = await another_leads(replicas, leader)
    leader.claims.away = False
    await until(lambda: leader.leadership.standing.term is None, "it learns of its successor")
    assert "fenced at term 2" in leader.leadership.standing.why
    assert successor.leads
    assert in_order(shared)


async def test_a_renewal_without_an_answer_changes_nothing(
    server: LeaseServer, replicas: Sequence[Replica]
) -> None:
    server.swallow = 1
    writes = server.writes
    await until(lambda: server.writes > writes + 3, "renewals go on")
    assert replicas[0].log == ["begin 1"]


async def test_an_acquisition_without_an_answer_is_repeated_with_a_higher_term(
    server: LeaseServer, shared: FenceInMemory, tmp_path: Path
) -> None:
    server.swallow = 1
    async with a_replica("pod-0", server, shared, tmp_path).running() as one:
        await until(lambda: one.leads, "it leads")
        assert one.term == 2
    assert server.history == [("", 0), ("pod-0 boot", 1), ("pod-0 boot", 2), ("", 2)]


async def test_edits_by_hand_do_not_end_a_term(
    server: LeaseServer, replicas: Sequence[Replica]
) -> None:
    for number in range(5):
        server.annotate("note", str(number))
        writes = server.writes
        await until(lambda writes=writes: server.writes > writes + 1, "renewed")  # type: ignore[misc] # a loop's default
    assert server.annotation("note") == "4"
    assert replicas[0].log == ["begin 1"]


async def test_a_lease_given_to_somebody_else_by_hand_ends_the_term(
    server: LeaseServer, shared: FenceInMemory, replicas: Sequence[Replica]
) -> None:
    server.edit(holderIdentity="nobody we know", leaseTransitions=9)
    await until(lambda: "end 1" in replicas[0].log, "the term ends")
    await until(lambda: len(leading(replicas)) == 1, "somebody leads when it has run out")
    assert server.term == 10
    assert in_order(shared)


async def test_a_deleted_lease_lets_the_leader_go_on_and_a_new_one_ends_its_term(
    server: LeaseServer, shared: FenceInMemory, replicas: Sequence[Replica]
) -> None:
    leader = replicas[0]
    server.delete()
    elector = leader.leadership._elector
    assert elector is not None
    renewed = elector._view.renewed
    await until(lambda: elector.beat > renewed + 2.0, "the lease has run out")
    assert leader.log == ["begin 1"]
    server.create()
    await until(lambda: len(leading(replicas)) == 1 and server.term == 2, "terms go on")
    assert "end 1" in leader.log
    assert shared.fence[0] == 2
    assert in_order(shared)


@pytest.mark.parametrize("fault", ["dropped", "mute"])
async def test_without_watches_a_lost_leader_is_replaced_too(
    fault: str, server: LeaseServer, replicas: Sequence[Replica]
) -> None:
    server.mute = fault == "mute"
    server.drop_watches()
    server.hang_for = {"pod-0"}
    replicas[0].claims.away = True
    await another_leads(replicas, replicas[0])


async def test_a_leader_hands_over_to_whom_a_person_names(
    server: LeaseServer, shared: FenceInMemory, replicas: Sequence[Replica]
) -> None:
    for target in (replicas[2], replicas[1]):
        server.annotate("handover-to", target.pod)
        await until(lambda target=target: leading(replicas) == [target.pod], "the target leads")  # type: ignore[misc] # a loop's default
        assert server.annotation("handover-to") is None
    assert [holder for holder, _ in server.history if holder] == [
        "pod-0 boot",
        "pod-2 boot",
        "pod-1 boot",
    ]
    assert in_order(shared)


@pytest.mark.parametrize("state", ["absent", "not fit"])
async def test_a_handover_to_one_who_cannot_lead_is_declined(
    state: str,
    server: LeaseServer,
    replicas: Sequence[Replica],
    caplog: pytest.LogCaptureFixture,
) -> None:
    if state == "not fit":
        replicas[2].signs = False
        await until(lambda: peers(replicas[0]) == {"pod-1"}, "the leader knows")
    server.annotate("handover-to", "pod-2" if state == "not fit" else "pod-9")
    await until(lambda: server.annotation("handover-to") is None, "the wish is cleared")
    assert replicas[0].log == ["begin 1"]
    assert "a handover is declined" in caplog.text


async def test_a_handover_to_who_leads_already_is_done(
    server: LeaseServer, replicas: Sequence[Replica], caplog: pytest.LogCaptureFixture
) -> None:
    server.annotate("handover-to", "pod-0")
    await until(lambda: server.annotation("handover-to") is None, "the wish is cleared")
    assert replicas[0].log == ["begin 1"]
    assert "a handover is declined" not in caplog.text


async def test_who_is_fenced_off_by_hand_does_not_lead_until_it_is_not(
    server: LeaseServer, replicas: Sequence[Replica]
) -> None:
    server.annotate("fenced", "pod-0, pod-1")
    await until(lambda: leading(replicas) == ["pod-2"], "the third leads")
    assert server.annotation("fenced") == "pod-0, pod-1"
    server.annotate("fenced", "pod-2,pod-1")
    await until(lambda: leading(replicas) == ["pod-0"], "the first leads")


async def test_a_refused_claim_is_tried_again_above_the_fence(
    server: LeaseServer, shared: FenceInMemory, tmp_path: Path
) -> None:
    one = a_replica("pod-0", server, shared, tmp_path)
    one.claims.refuse = 2
    async with one.running():
        await until(lambda: one.leads, "it leads")
        assert one.term == 5
    assert shared.claims == [(5, "pod-0 boot")]


async def test_after_three_refusals_others_get_a_turn(
    server: LeaseServer,
    shared: FenceInMemory,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    one, other = (a_replica(pod, server, shared, tmp_path) for pod in ("pod-0", "pod-1"))
    one.claims.refuse = 1_000_000  # it comes back to try again, on a slow machine before the other
    other.signs = False
    async with one.running(), other.running():
        await until(lambda: "refused several terms" in caplog.text, "it gives up")
        other.signs = True
        await until(lambda: other.leads, "the other leads")
        assert one.log == []


async def test_the_token_is_read_again_for_every_request(
    server: LeaseServer, replicas: Sequence[Replica], tmp_path: Path
) -> None:
    (tmp_path / "pod-0.token").write_text("renewed")
    await until(lambda: server.tokens.count("renewed") > 3, "the new token is used")
    assert replicas[0].log == ["begin 1"]
