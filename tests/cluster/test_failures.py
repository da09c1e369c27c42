"""What breaks by itself: containers, pods, nodes, networks, Redis, the API server.

In each story batches go on, nothing acknowledged is lost, and no batch is answered twice. How long
clients waited is recorded in a table.
"""

from __future__ import annotations

from controller import names
from tests.cluster.faults import Faults, kill_container
from tests.cluster.group import NAME, Group
from tests.cluster.kubectl import until


def test_a_resource_of_ten_lines_becomes_a_group_that_serves(group: Group) -> None:
    with group.story("nothing"):
        group.traffic.flow(8)
    for condition in (
        "Ready", "LeaderElected", "StoreHealthy", "StateDurable", "ChainReachable",
        "SubmissionHealthy", "FaultTolerant", "UpToDate",
    ):  # fmt: skip
        group.wait(condition)
    group.kubectl("wait", "--for=condition=Ready", f"aagg/{NAME}", "--timeout=10s")


def test_the_leaders_container_is_killed(group: Group, breaking: Faults) -> None:
    with group.story("container of the leader killed"):
        leader, term = group.leader(), group.term()
        pod = group.pod(leader)
        (container,) = pod["status"]["containerStatuses"]
        kill_container(breaking, pod["spec"]["nodeName"], container["containerID"])
        until(lambda: group.term() > term, "another term")
        group.traffic.flow()


def test_the_leaders_pod_is_deleted_by_force(group: Group) -> None:
    with group.story("pod of the leader deleted by force"):
        term = group.term()
        group.delete(group.leader())
        until(lambda: group.term() > term, "another term")
        group.traffic.flow()


def test_the_leaders_node_dies(group: Group, breaking: Faults) -> None:
    with group.story("node of the leader dies, and returns"):
        leader, node = group.leader(), group.node_of_leader()
        breaking.kill(node)
        group.broken[node] = "killed"
        until(lambda: group.leader() not in {"", leader}, "another leader")
        group.traffic.flow()
        group.mend()


def test_the_leaders_node_is_cut_off(group: Group, breaking: Faults) -> None:
    with group.story("node of the leader cut off, and back"):
        leader, node = group.leader(), group.node_of_leader()
        breaking.partition(node)
        group.broken[node] = "partitioned"
        until(lambda: group.leader() not in {"", leader}, "another leader")
        group.traffic.flow()
        group.mend()


def test_all_of_redis_is_lost_at_once(group: Group) -> None:
    with group.story("all Redis pods deleted at once"):
        before = {pod["metadata"]["uid"] for pod in group.pods(names.REDIS)}
        group.delete(*(pod["metadata"]["name"] for pod in group.pods(names.REDIS)))

        def are_new() -> bool:
            pods = group.pods(names.REDIS)
            return not before & {pod["metadata"]["uid"] for pod in pods}

        until(are_new, "new Redis pods")
        group.traffic.flow()


def test_a_leader_is_replaced_while_there_is_no_controller(group: Group) -> None:
    with group.story("pod of the leader deleted, controller at zero"):
        group.scale_controller(0)
        term = group.term()
        group.delete(group.leader())
        until(lambda: group.term() > term, "another term")
        group.traffic.flow()
        group.scale_controller(2)


def test_the_leader_goes_on_while_the_api_server_is_away(group: Group, breaking: Faults) -> None:
    with group.story("API server away, longer than any lease"):
        leader, term = group.leader(), group.term()
        breaking.stop_api_server()
        try:
            group.traffic.flow(12)
        finally:
            breaking.start_api_server()
        until(lambda: group.leader() == leader, "the Lease can be read")
        assert group.term() == term
