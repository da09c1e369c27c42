"""Edge: what the transactor asks the chain, each question in one round trip."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from aggregator.chain import told
from aggregator.chain.fees import Market
from aggregator.chain.nonces import Facts, Fate
from aggregator.outbox import Receipt, Survey
from aggregator.together import together
from aligned.chain import calldata, reverts
from aligned.chain.reverts import Revert, RevertKind
from aligned.chain.rpc import BlockMissing, RpcError, Undecodable, eth_call, to_bytes, to_int
from aligned.errors import ChainUnavailable
from aligned.model import Address, BlockRef, TransactionHash, Wei

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aggregator.chain.fees import Offer
    from aggregator.chain.nonces import Ledger
    from aggregator.chain.signer import Transaction
    from aligned.chain.calldata import BatchRecord, Indices
    from aligned.chain.rpc import Rpc
    from aligned.model import Batch, BatchId, OperatorId

SIMULATED_GAS = 5_000_000
"""Gas limit of simulations, more than three times what 66 non-signers take. Without one, geth
takes the block's (60 million), or 50 million for a call, and wants the account to have the money
for all of it."""

_UNSUPPORTED = frozenset({-32601, -32004})
"""JSON-RPC codes of a method that a node does not have (EIP-1474)."""

_CHUNK = 100
"""Calls in one request: what providers take."""


class HeadSource(Protocol):
    """The watcher's view of the chain's tip."""

    @property
    def head(self) -> BlockRef | None:
        """The newest block that was looked at; None before the first."""

    @property
    def finalized(self) -> BlockRef | None:
        """The newest block that no reorg takes back; None before it was looked at."""

    async def next_head(self) -> BlockRef:
        """Wait for another head than the present one."""


class Indexes(Protocol):
    """The part of the registry that an answer needs."""

    async def indices(
        self, created: BlockRef, non_signers: Sequence[OperatorId], *, at: BlockRef
    ) -> Indices:
        """Return where the values of ``created`` are, as the state of ``at`` has them.

        Raises:
            RpcError: The contract refuses: ``non_signers`` are not members.
            ChainUnavailable: No endpoint answers, or none has ``at``.
        """


class Node:
    """Reads.

    Args:
        rpc: The endpoints.
        service_manager: The contract that is answered.
        indexes: Reads the registry's histories.
        heads: The tip.
    """

    def __init__(
        self, rpc: Rpc, service_manager: Address, indexes: Indexes, heads: HeadSource
    ) -> None:
        self._rpc = rpc
        self._contract = service_manager
        self._indexes = indexes
        self._heads = heads
        self._simulates = True
        """Whether a node may have ``eth_simulateV1``."""

    @property
    def head(self) -> BlockRef:
        """The newest block.

        Raises:
            ChainUnavailable: None was seen yet.
        """
        if (head := self._heads.head) is None:
            msg = "no block was seen yet"
            raise ChainUnavailable(msg)
        return head

    async def survey(
        self, batch: Batch, non_signers: Sequence[OperatorId], account: Address | None
    ) -> Survey:
        """Return everything an answer depends on; without ``account``, our balance is 0.

        Raises:
            RpcError: The registry refuses these non-signers.
            ChainUnavailable: No endpoint answers.
        """
        head = self.head
        calls: list[tuple[str, Sequence[object]]] = [
            eth_call(self._contract, calldata.batches_state(batch.batch_id), "latest"),
            eth_call(self._contract, calldata.batchers_balances(batch.sender), "latest"),
            eth_call(self._contract, calldata.aligned_aggregator(), "latest"),
            ("eth_getBlockByNumber", ["latest", False]),
            ("eth_maxPriorityFeePerGas", []),
        ]
        if account is not None:
            calls.append(("eth_getBalance", [_hex(account), "latest"]))
        answers, indices = await together(
            self._rpc.call_many(calls),
            self._indexes.indices(batch.created, non_signers, at=head),
        )
        record, deposit, aggregator, block, tip, *balance = answers
        return Survey(
            indices=indices,
            record=calldata.parse_batches_state(to_bytes(told.known(record))),
            aggregator=calldata.parse_address(to_bytes(told.known(aggregator))),
            deposit=Wei(calldata.parse_uint(to_bytes(told.known(deposit)))),
            balance=Wei(to_int(told.known(balance[0])) if balance else 0),
            base_fee=told.base_fee(told.known(block)),
            tip=told.tip(tip),
        )

    async def estimate(
        self, account: Address, data: bytes, offered: Offer, *, base_fee: Wei
    ) -> int:
        """Return the gas an answer takes; it is also the simulation.

        With the fee fields, without which the contract moves no money; on the block after the
        head, since the batch's own block is too early. ``eth_simulateV1`` runs it once;
        ``eth_estimateGas`` runs it some fifteen times to find the limit, and serves where the
        node has nothing better. Measured with 66 non-signers on anvil: 4 ms against 60.

        Raises:
            RpcError: It would revert, or the account cannot pay.
            ChainUnavailable: No endpoint answers.
        """
        call = self._message(account, data, offered.max_fee, offered.tip)
        if self._simulates:
            gas = await self._simulated(call | {"gas": hex(SIMULATED_GAS)}, base_fee)
            if gas is not None:
                return gas
        return to_int(await self._rpc.call("eth_estimateGas", [call, "pending"]))

    async def _simulated(self, call: dict[str, object], base_fee: Wei) -> int | None:
        """Run ``call`` in the block after the head; None where the node cannot.

        Raises:
            RpcError: It reverts.
            ChainUnavailable: No endpoint answers.
        """
        # Some nodes would run it in the head itself, and without a base fee, if not told.
        overrides = {"number": hex(self.head.number + 1), "baseFeePerGas": hex(base_fee)}
        block = {"blockOverrides": overrides, "calls": [call]}
        try:
            answer = await self._rpc.call(
                "eth_simulateV1", [{"blockStateCalls": [block]}, "latest"]
            )
        except RpcError as refusal:
            self._simulates = refusal.code not in _UNSUPPORTED
            return None
        try:
            result = answer[0]["calls"][0]
            succeeded, gas = to_int(result["status"]) == 1, to_int(result["gasUsed"])
            error = result["error"] if isinstance(result.get("error"), dict) else {}
        except (LookupError, TypeError, AttributeError, Undecodable):
            return None
        if succeeded:
            return gas
        if gas > SIMULATED_GAS // 2:
            return None  # it may have run out of gas: an estimate has no such limit
        raise RpcError(
            error.get("code", 3),
            error.get("message", "execution reverted"),
            result.get("returnData") or error.get("data"),
        )

    async def simulate(self, account: Address, data: bytes, max_fee: Wei, tip: Wei) -> Revert:
        """Return why an answer reverts: some nodes tell only for a call, not for an estimate.

        Raises:
            ChainUnavailable: No endpoint answers.
        """
        call = self._message(account, data, max_fee, tip) | {"gas": hex(SIMULATED_GAS)}
        return await self._revert([call, "pending"])

    async def replay(self, transaction: Transaction, account: Address, block: int) -> Revert:
        """Return why a transaction reverted that was mined in ``block``.

        Raises:
            ChainUnavailable: No endpoint answers, or none has the state any more.
        """
        call = self._message(account, transaction.data, transaction.max_fee, transaction.tip)
        return await self._revert([call | {"gas": hex(transaction.gas)}, hex(block - 1)])

    async def _revert(self, params: Sequence[object]) -> Revert:
        try:
            await self._rpc.call("eth_call", params)
        except RpcError as refusal:
            return reverts.revert_of(refusal)
        return Revert(RevertKind.UNKNOWN, "it succeeds when it is tried again")

    def _message(self, account: Address, data: bytes, max_fee: Wei, tip: Wei) -> dict[str, object]:
        return {
            "from": _hex(account),
            "to": _hex(self._contract),
            "data": _hex(data),
            "maxFeePerGas": hex(max_fee),
            "maxPriorityFeePerGas": hex(tip),
        }

    async def standing(self, account: Address) -> tuple[Address, int]:
        """Return the contract's aggregator, and ``account``'s pending transaction count.

        The count includes mined ones and is the greatest of all endpoints.

        Raises:
            ChainUnavailable: No endpoint answers.
        """
        (aggregator,), pending = await together(
            self._rpc.call_many(
                [eth_call(self._contract, calldata.aligned_aggregator(), "latest")]
            ),
            self._count(account, "pending"),
        )
        return calldata.parse_address(to_bytes(told.known(aggregator))), pending

    async def used(self, account: Address) -> int:
        """Return how many nonces of ``account`` are used as of the final block.

        0 where nobody has that state, or before a final block was seen.

        Raises:
            ChainUnavailable: No endpoint answers.
        """
        if (block := self._heads.finalized) is None:
            return 0
        try:
            count = await self._rpc.call(
                "eth_getTransactionCount", [_hex(account), hex(block.number)]
            )
        except (BlockMissing, RpcError):
            return 0
        return to_int(count)

    async def facts(self, account: Address, ledger: Ledger) -> Facts:
        """Return what ``ledger`` must know at the present head.

        Raises:
            ChainUnavailable: No endpoint answers.
        """
        head = self.head
        ((balance, market, receipts, records), (final, answered)), latest = await together(
            together(self._ask(account, ledger), self._finality(account, ledger)),
            self._count(account, "latest"),
        )
        await self._find(ledger, latest, receipts)
        return Facts(
            head=head,
            latest=latest,
            final=min(final, latest),
            market=market,
            balance=balance,
            receipts=receipts,
            records=records,
            answered_finally=answered,
        )

    async def _ask(
        self, account: Address, ledger: Ledger
    ) -> tuple[Wei, Market, dict[TransactionHash, Receipt], dict[BatchId, BatchRecord]]:
        hashes = [row.hash for slot in ledger for row in slot.rows]
        opened = _batches(ledger, final=False)
        calls: list[tuple[str, Sequence[object]]] = [
            ("eth_getBlockByNumber", ["latest", False]),
            ("eth_maxPriorityFeePerGas", []),
            ("eth_getBalance", [_hex(account), "latest"]),
            *(self._record(batch_id, "latest") for batch_id in opened),
            *(("eth_getTransactionReceipt", [_hex(known)]) for known in hashes),
        ]
        block, tip, balance, *answers = await self._in_parts(calls)
        receipts = (told.receipt(answer) for answer in answers[len(opened) :])
        return (
            Wei(to_int(told.known(balance))),
            Market(told.base_fee(told.known(block)), told.tip(tip)),
            {receipt.hash: receipt for receipt in receipts if receipt is not None},
            _records(opened, answers),
        )

    async def _finality(self, account: Address, ledger: Ledger) -> tuple[int, frozenset[BatchId]]:
        """Return the account's count, and the batches that are answered, as of the final block.

        Nothing where nobody has that state: nodes prune it when the chain has not finalized for
        long, and then only the forgetting of what is final has to wait. Raises as ``facts``.
        """
        if (block := self._heads.finalized) is None:
            return 0, frozenset()
        at = hex(block.number)
        settled = _batches(ledger, final=True)
        calls: list[tuple[str, Sequence[object]]] = [
            ("eth_getTransactionCount", [_hex(account), at]),
            *(self._record(batch_id, at) for batch_id in settled),
        ]
        try:
            count, *answers = await self._in_parts(calls)
        except BlockMissing as missing:
            count, answers = missing, []
        if isinstance(count, RpcError | BlockMissing):
            return 0, frozenset()
        finals = _records(settled, answers)
        answered = (batch_id for batch_id, record in finals.items() if record.responded)
        return to_int(count), frozenset(answered)

    async def _in_parts(self, calls: Sequence[tuple[str, Sequence[object]]]) -> list[Any]:
        answers: list[Any] = []
        for start in range(0, len(calls), _CHUNK):
            answers += await self._rpc.call_many(calls[start : start + _CHUNK])
        return answers

    async def _count(self, account: Address, tag: str) -> int:
        """Return the greatest transaction count of all endpoints.

        Raises:
            ChainUnavailable: No endpoint answers, or all refuse.
        """
        try:
            return await self._rpc.maximum("eth_getTransactionCount", [_hex(account), tag])
        except RpcError as refusal:
            return to_int(told.known(refusal))

    def _record(self, batch_id: BatchId, block: str) -> tuple[str, Sequence[object]]:
        return eth_call(self._contract, calldata.batches_state(batch_id), block)

    async def _find(
        self, ledger: Ledger, latest: int, receipts: dict[TransactionHash, Receipt]
    ) -> None:
        """Ask every endpoint about consumed nonces of which the first one shows no receipt.

        If all refuse, that is an outage: silence would pass for a theft. Raises as ``facts``.
        """
        for slot in ledger:
            if slot.nonce >= latest or any(row.hash in receipts for row in slot.rows):
                continue
            for row in slot.rows:
                try:
                    answer = await self._rpc.find("eth_getTransactionReceipt", [_hex(row.hash)])
                except RpcError as refusal:  # such as "transaction indexing is in progress"
                    answer = told.known(refusal)
                if (receipt := told.receipt(answer)) is not None:
                    receipts[receipt.hash] = receipt


def _batches(ledger: Ledger, *, final: bool) -> list[BatchId]:
    """Return the batches of open nonces, or of those mined below the finalized count."""
    found: dict[BatchId, None] = {}
    for slot in ledger:
        wanted = slot.fate is Fate.MINED and slot.nonce < ledger.final
        if wanted if final else slot.fate is Fate.OPEN:
            found.update({row.batch_id: None for row in slot.rows if row.batch_id is not None})
    return list(found)


def _records(batch_ids: Iterable[BatchId], answers: Iterable[object]) -> dict[BatchId, BatchRecord]:
    return {
        batch_id: calldata.parse_batches_state(to_bytes(answer))
        for batch_id, answer in zip(batch_ids, answers, strict=False)
        if not isinstance(answer, RpcError)
    }


def _hex(data: bytes) -> str:
    return "0x" + data.hex()
