"""Those who look on: what Redis servers, daemons' logs, journals and the chain say."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from datetime import datetime
from typing import Any, cast

from eth_abi.abi import decode
from redis.asyncio.connection import Connection

from aggregator.journal import opening, reading
from aggregator.store.connection import Address, Server, connect, exchange
from aggregator.store.records import unpack_news
from aligned import model
from aligned.chain import abi
from aligned.errors import StateDamaged, StoreUnavailable
from aligned.model import (
    BatchId,
    G1Point,
    OperatorId,
    TransactionHash,
    batch_id,
    operator_id,
)
from devnet.network import AGGREGATOR, BATCH_VERIFIED, Network, hexed
from devnet.replicas import Replica
from devnet.rpc import NodeAway
from tests.nemesis.history import Claimed, History, Leading, Mined, Moment, Row, Sent

_BLOCK_MILLISECONDS = 500
_READ_SECONDS = 2.0
_AGAIN_SECONDS = 0.05
_CHAIN_SECONDS = 0.5
_BLOCKS_AT_ONCE = 100


# Redis: the stream of each server, so that what a primary took into its grave is known as well.


async def read_stream(network: Network, port: int, history: History) -> None:
    """Note what one server's stream says, until cancelled. Servers come and go."""
    last = b"0-0"
    while True:
        with suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout(_READ_SECONDS):
                connection = await connect(Server(address=Address("127.0.0.1", port)), "witness")
            try:
                while True:
                    last = await _read(connection, network, last, history)
            finally:
                await connection.disconnect(nowait=True)
        await asyncio.sleep(_AGAIN_SECONDS)


async def _read(connection: Connection, network: Network, last: bytes, history: History) -> bytes:
    deployment = network.deployment
    key = f"{{aligned:{deployment.chain_id}:{deployment.service_manager.hex()}}}:log"
    command = ("XREAD", "BLOCK", _BLOCK_MILLISECONDS, "STREAMS", key, last)
    async with asyncio.timeout(_READ_SECONDS):
        [reply] = await exchange(connection, [command])
    if not isinstance(reply, list):
        if reply is not None:
            await asyncio.sleep(_AGAIN_SECONDS)  # loading, or about to be demoted
        return last
    records = cast("list[tuple[bytes, list[bytes]]]", cast("Any", reply)[0][1])
    for moment, flat in records:
        _note(moment, dict(zip(flat[::2], flat[1::2], strict=True)), history)
    return records[-1][0]


def _note(moment: bytes, fields: dict[bytes, bytes], history: History) -> None:
    with suppress(StateDamaged):
        news = unpack_news(fields)
        milliseconds, counter = (int(part) for part in moment.split(b"-"))
        at: Moment = (milliseconds, counter)
        if news.fence.term:
            history.claims.append(Claimed(news.fence.term, news.fence.holder, at))
        history.rows.extend(
            Row(row.hash, row.term, row.batch_id, at, fields.get(b"by", b"").decode())
            for row in news.rows
        )


# The chain.


async def watch_answers(network: Network, history: History) -> None:
    """Note when batches are verified, until cancelled."""
    question = {
        "address": hexed(network.deployment.service_manager),
        "topics": [hexed(BATCH_VERIFIED)],
    }
    first = network.deployment.block
    while True:
        with suppress(NodeAway):
            head = await network.anvil.head()
            span = {"fromBlock": hex(first), "toBlock": hex(head)}
            for log in await network.node.call("eth_getLogs", question | span):
                sender = model.Address(bytes.fromhex(log["data"][-40:]))
                batch = batch_id(bytes.fromhex(log["topics"][1][2:]), sender)
                history.seen_verified.setdefault(batch, time.time())
            first = head  # again: the chain mines while it is asked
        await asyncio.sleep(_CHAIN_SECONDS)


async def read_chain(network: Network, history: History) -> None:
    """Note every transaction of the aggregator's account and every event that verifies a batch."""
    head = await network.anvil.head()
    first = network.deployment.block
    while first <= head:
        numbers = range(first, min(first + _BLOCKS_AT_ONCE, head + 1))
        blocks = await network.node.batch(
            [("eth_getBlockByNumber", [hex(number), True]) for number in numbers]
        )
        ours = [
            transaction
            for block in blocks
            for transaction in block["transactions"]
            if transaction["from"] == hexed(AGGREGATOR)
        ]
        await _read_transactions(network, ours, history)
        first += _BLOCKS_AT_ONCE
    history.verified = {
        batch: [TransactionHash(bytes.fromhex(one[2:])) for one in hashes]
        for batch, hashes in (await network.all_answers()).items()
    }


async def _read_transactions(
    network: Network, transactions: list[dict[str, Any]], history: History
) -> None:
    if not transactions:
        return
    receipts = await network.node.batch(
        [("eth_getTransactionReceipt", [one["hash"]]) for one in transactions]
    )
    for transaction, receipt in zip(transactions, receipts, strict=True):
        answers, non_signers = _answered(bytes.fromhex(transaction["input"][2:]))
        history.mined.append(
            Mined(
                TransactionHash(bytes.fromhex(transaction["hash"][2:])),
                int(receipt["blockNumber"], 16),
                receipt["status"] == "0x1",
                int(receipt["gasUsed"], 16),
                answers,
                non_signers,
            )
        )


def _answered(data: bytes) -> tuple[BatchId | None, frozenset[OperatorId]]:
    """Return what a transaction's data answers, and without whom."""
    if data[:4] != abi.RESPOND_TO_TASK_V2:
        return None, frozenset()
    root, sender, proof = decode(("bytes32", "address", abi.CERTIFICATE), data[4:])
    lacking = frozenset(operator_id(G1Point(x + y)) for x, y in proof[1])
    return batch_id(root, model.Address(bytes.fromhex(sender[2:]))), lacking


async def read_final(network: Network, history: History) -> None:
    """Note which batches' answers are final by now."""
    block = await network.node.call("eth_getBlockByNumber", "finalized", False)
    final = int(block["number"], 16)
    history.final = {
        one.answers for one in history.mined if one.answers and one.succeeded and one.block <= final
    }


# Aggregators.


def read_log(replica: Replica, history: History) -> None:
    """Note when a replica led and what it sent, over all its starts."""
    for text in replica.daemon.log_text().splitlines():
        if not (text.startswith("{") and text.endswith("}")):
            continue
        line = json.loads(text)
        at = datetime.fromisoformat(line["time"]).timestamp()
        match line["event"]:
            case "leading":
                history.leading.append(Leading(replica.name, line["term"], line["holder"], at))
            case "transaction sent":
                transaction = TransactionHash(bytes.fromhex(line["transaction"][2:]))
                history.sent.append(Sent(replica.name, transaction, at))
            case _:
                pass


def read_outbox(replica: Replica, history: History) -> None:
    """Note rows on a replica's disk that no server told of while it was looked at."""
    if not replica.journal.exists():
        return
    with opening.read_only(replica.journal) as connection:
        rows = reading.read_outbox(connection)
    known = {row.transaction for row in history.rows}
    history.rows.extend(
        Row(row.hash, row.term, row.batch_id, None, replica.name)
        for row in rows
        if row.hash not in known
    )
