from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from py_ecc.optimized_bn128.optimized_curve import G1, multiply, normalize

from aggregator.ingress.server import Ingress
from aggregator.ingress.statistics import Ending
from aggregator.ports import ReplyCode
from aggregator.settings import Listen
from aligned import model
from aligned.bls.curve import multiply_g1
from aligned.bls.hash_to_g1 import hash_to_g1

if TYPE_CHECKING:
    from aggregator.ports import Caller

pytestmark = [
    pytest.mark.timeout(600),  # the first build compiles go-ethereum
    pytest.mark.skipif(
        shutil.which("go") is None,
        reason="no Go: install 1.22 or later from https://go.dev/dl and put go on the PATH",
    ),
]

MODULE = Path(__file__).parents[1] / "interop" / "operator"
KEY = 12345678901234567890
BATCHES = 50
HANG_UP = 777
SENDER = model.Address(bytes(range(200, 220)))


class Recorder:
    """Accepts everything, but hangs up on one batch the first time."""

    def __init__(self) -> None:
        self.responses: list[model.Response] = []
        self.most_open = 0
        self.gone: list[Caller] = []
        self._open: list[tuple[Caller, int]] = []

    def receive(self, response: model.Response, caller: Caller, seq: int) -> None:
        self.responses.append(response)
        if response.batch_id == batch_id(HANG_UP) and self.responses.count(response) == 1:
            caller.hang_up()
            return
        if not self._open:
            asyncio.get_running_loop().call_later(0.01, self._answer)
        self._open.append((caller, seq))
        self.most_open = max(self.most_open, len(self._open))

    def _answer(self) -> None:
        while self._open:  # the last first: replies need not keep the order of calls
            caller, seq = self._open.pop()
            caller.answer(seq, ReplyCode.ACCEPTED)

    def dropped(self, caller: Caller) -> None:
        self.gone.append(caller)


def batch_id(number: int) -> model.BatchId:
    return model.batch_id(number.to_bytes(32), SENDER)


def operator_id() -> model.OperatorId:
    x, y = normalize(multiply(G1, KEY))
    return model.operator_id(model.G1Point(int(x).to_bytes(32) + int(y).to_bytes(32)))


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    binary = tmp_path_factory.mktemp("go") / "operator"
    subprocess.run(["go", "build", "-buildvcs=false", "-o", binary, "."], cwd=MODULE, check=True)
    return binary


async def run(client: Path, ingress: Ingress) -> dict[str, list[dict[str, Any]]]:
    """Run the client to its end; return what it printed, by step."""
    host, port = ingress.address
    process = await asyncio.create_subprocess_exec(
        client,
        *("-address", f"{host}:{port}", "-key", str(KEY)),
        *("-batches", str(BATCHES), "-hang-up", str(HANG_UP)),
        stdout=subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        output, _ = await process.communicate()
    assert process.returncode == 0
    steps: dict[str, list[dict[str, Any]]] = {}
    for line in output.splitlines():
        step = json.loads(line)
        steps.setdefault(step["step"], []).append(step)
    return steps


async def test_a_go_operator_is_served_as_by_a_go_aggregator(client: Path) -> None:
    recorder = Recorder()
    ingress = Ingress(Listen(address="127.0.0.1:0"), recorder)
    await ingress.start()
    steps = await run(client, ingress)
    await ingress.drain()

    def told(step: str) -> list[tuple[int, str]]:
        return [(line["value"], line["error"]) for line in steps[step]]

    assert told("running") == [(1, "")]
    assert told("at once") == [(0, "")] * BATCHES
    assert told("one by one") == [(0, "")] * BATCHES
    assert told("unknown method") == [
        (0, "rpc: can't find method Aggregator.ProcessOperatorSignedTaskResponse")
    ]
    assert told("another type") == [
        (0, "gob: type mismatch: no fields matched compiling decoder for SignedTaskResponse")
    ]
    for step in ("nil outside", "nil inside", "wrong hash"):
        assert told(step) == [(1, "")]
    assert told("after errors") == [(0, "")]
    assert told("hung up") == [(0, "unexpected EOF")]
    assert told("shut down") == [(0, "connection is shut down")]
    assert steps["shut down"][0]["shutdown"]
    assert told("dialled again") == [(0, "")]
    assert told("closed and dialled") == [(0, "")]
    assert told("running still") == [(1, "")]

    assert recorder.most_open > 1
    assert len(recorder.gone) == 1
    statistics = ingress.statistics
    assert statistics.refused == {
        "nil signature": 2,
        "batch id is not the hash of root and sender": 1,
    }
    assert statistics.malformed == {}
    assert statistics.connections_opened == 3
    assert statistics.connections_ended[Ending.HUNG_UP] == 1
    check_responses(recorder, steps)


def check_responses(recorder: Recorder, steps: dict[str, list[dict[str, Any]]]) -> None:
    """What arrived is what the client says it sent, and what its key signs."""
    by_id = {response.batch_id: response for response in recorder.responses}
    assert by_id.keys() == {batch_id(number) for number in [*range(BATCHES), HANG_UP]}
    for line in steps["one by one"]:
        number = line["batch"]
        response = by_id[batch_id(number)]
        assert response.merkle_root == number.to_bytes(32)
        assert response.sender == SENDER
        assert response.batch_id.hex() == line["batch_id"]
        assert response.operator_id.hex() == line["operator_id"]
        assert response.operator_id == operator_id()
        assert response.signature.hex() == line["signature"]
        assert bytes(response.signature) == multiply_g1(hash_to_g1(response.batch_id), KEY)
    assert len(recorder.responses) == 2 * BATCHES + 4
