"""One endpoint: its URL, its health, and one exchange with it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from aligned.chain import jsonrpc
from aligned.chain.rpc import RpcError, Undecodable, to_bytes, to_int
from aligned.chain.transport import TransportFailed
from aligned.errors import ChainUnavailable
from aligned.model import BlockHash

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from aligned.chain.transport import Transport

    Calls = Sequence[tuple[str, Sequence[object]]]
    Answers = list[Any | RpcError]

BATCH: Final = 50
"""Requests in one body at most; more go in several."""
_SINGLES_AT_ONCE: Final = 8
_SHORTEST_SECRET: Final = 8
MISSED: Final = 32
"""Raw transactions kept for an endpoint that is away."""


class EndpointFailed(ChainUnavailable):
    """This endpoint gave no answer; the message is fit to be shown."""


class WrongChain(EndpointFailed):
    """This endpoint belongs to another chain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where an endpoint is. Exactly one of ``url`` and ``url_file`` is set."""

    name: str
    url: str | None = field(default=None, repr=False)
    """Carries a key: never shown; ``Endpoint.host`` is."""
    url_file: Path | None = None
    """Holds the URL; read again when it changes."""


class Url:
    """The current URL of a source."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._read_at: tuple[int, int, int] | None = None
        self._url = source.url or ""
        self.version = 0
        """Rises when the URL changes."""

    def current(self) -> str:
        """Return the URL as of now.

        Raises:
            EndpointFailed: The file cannot be read and never could.
        """
        path = self._source.url_file
        if path is None:
            return self._url
        try:
            stat = path.stat()
            read_at = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            if read_at == self._read_at:
                return self._url
            url = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            if self._url:  # a secret in the middle of being replaced
                return self._url
            msg = f"url_file cannot be read: {type(error).__name__}"
            raise EndpointFailed(msg) from error
        self.version += url != self._url
        self._read_at, self._url = read_at, url
        return url


@dataclass(slots=True)
class Chain:
    """What every endpoint must be an endpoint of."""

    chain_id: int
    genesis_hash: BlockHash | None = None
    """None until the first endpoint told it."""


class Endpoint:
    """One endpoint, asked by one exchange at a time or several.

    Health is kept here and judged by ``Endpoints``.
    """

    def __init__(
        self, source: Source, transport: Transport, chain: Chain, *, timeout_seconds: float
    ) -> None:
        self.name = source.name
        self._url = Url(source)
        self._transport = transport
        self._chain = chain
        self._timeout_seconds = timeout_seconds
        self._checking = asyncio.Lock()
        self._last_check: EndpointFailed | None = None
        self._checks = 0
        self._takes_batches = True
        self._verified_version: int | None = None
        self._seen_version = 0
        self.is_foreign = False
        """It showed others."""
        self.failures = 0
        """In a row."""
        self.ejected_until: float | None = None
        """Time of the clock; None while healthy."""
        self.last_error = ""
        self.head: int | None = None
        self.head_timestamp: int | None = None
        """Unix seconds."""
        self.missed: dict[bytes, None] = {}
        """Raw transactions that it did not get while it was away, the newest ``MISSED``."""

    @property
    def host(self) -> str:
        """Host and port: all of the URL that may be shown."""
        try:
            parts = urlsplit(self._url.current())
            port = parts.port
        except (EndpointFailed, ValueError):
            return "?"
        return (parts.hostname or "?") + (f":{port}" if port else "")

    @property
    def is_verified(self) -> bool:
        """It showed the right chain id and genesis block under its present URL."""
        return self._verified_version == self._url.version

    def doubt(self) -> None:
        """Verify again before the next request: behind the URL there may be another node."""
        self._verified_version = None

    def __repr__(self) -> str:
        return f"Endpoint({self.name!r}, {self.host})"

    async def ask(self, calls: Calls, *, reaching: int | None = None) -> Answers:
        """Return the answers in order, once it is certain that the endpoint is of our chain.

        Where it has no block ``reaching``, every answer is a refusal that says so.

        Raises:
            WrongChain: It is not.
            EndpointFailed: No whole answer in time.
        """
        self._url.current()
        if not self.is_verified:
            await self._verify_once()
        if reaching is None:
            return await self._exchange(calls)
        # The block comes first: had it come in between, what was answered before would lack it.
        block, *answers = await self._exchange(
            [("eth_getBlockByNumber", [hex(reaching), False]), *calls]
        )
        if isinstance(block, dict):
            return answers
        return [jsonrpc.no_block(reaching) for _ in answers]

    async def _verify_once(self) -> None:
        """Verify, or share what a check finds that is under way.

        Callers that stand in line for an endpoint that hangs wait for one deadline, not for one
        each.

        Raises:
            WrongChain: It is of another chain.
            EndpointFailed: No whole answer in time.
        """
        checks = self._checks
        async with self._checking:
            if self._checks == checks:
                await self._verify()
            elif not self.is_verified:
                failure = self._last_check or self._failed("was not verified")
                raise type(failure)(str(failure))

    def miss(self, raw: bytes) -> None:
        """Remember a raw transaction for when it is back."""
        self.missed[raw] = None
        while len(self.missed) > MISSED:
            del self.missed[next(iter(self.missed))]

    async def verify(self) -> None:
        """Ask for chain id, genesis block and head, and remember them.

        Raises:
            WrongChain: It is of another chain.
            EndpointFailed: No whole answer in time.
        """
        async with self._checking:
            await self._verify()

    async def _verify(self) -> None:
        self._last_check = None
        try:
            await self._check()
        except EndpointFailed as failure:
            self._last_check = failure
            raise
        finally:
            self._checks += 1

    async def _check(self) -> None:
        self._url.current()
        version = self._url.version
        if version != self._seen_version:
            self._seen_version = version
            self._takes_batches = True
        answers = await self._exchange(
            [
                ("eth_chainId", []),
                ("eth_getBlockByNumber", ["0x0", False]),
                ("eth_getBlockByNumber", ["latest", False]),
            ]
        )
        for answer in answers:
            if isinstance(answer, RpcError):
                raise self._failed(f"refused a probe: {answer}")
        try:
            chain_id = to_int(answers[0])
            genesis = BlockHash(to_bytes(_field(answers[1], "hash")))
            head = to_int(_field(answers[2], "number"))
            timestamp = to_int(_field(answers[2], "timestamp"))
        except Undecodable as error:
            raise self._failed(f"answered a probe with nonsense: {error}") from error
        self._compare(chain_id, genesis)
        self._verified_version = version
        self.head, self.head_timestamp = head, timestamp

    def _compare(self, chain_id: int, genesis: BlockHash) -> None:
        expected = self._chain
        if chain_id == expected.chain_id and expected.genesis_hash is None:
            expected.genesis_hash = genesis
        self.is_foreign = (chain_id, genesis) != (expected.chain_id, expected.genesis_hash)
        if self.is_foreign:
            self._verified_version = None
        if chain_id != expected.chain_id:
            msg = f"belongs to chain {chain_id}, not {expected.chain_id}"
            raise WrongChain(msg)
        if self.is_foreign:
            msg = f"belongs to another chain with id {chain_id}: its genesis is 0x{genesis.hex()}"
            raise WrongChain(msg)

    async def _exchange(self, calls: Calls) -> Answers:
        if len(calls) == 1:
            return [await self._one(*calls[0])]
        answers: Answers = []
        for start in range(0, len(calls), BATCH):
            part = calls[start : start + BATCH]
            answers += await (self._batch(part) if self._takes_batches else self._singles(part))
        return answers

    async def _one(self, method: str, params: Sequence[object]) -> Any | RpcError:
        status, body = await self._post(jsonrpc.encode_call(method, params))
        try:
            return self._checked(jsonrpc.decode_answer(body))
        except jsonrpc.BadBody as error:
            raise self._failed(_bad(status, error)) from error

    async def _batch(self, calls: Calls) -> Answers:
        status, body = await self._post(jsonrpc.encode_calls(calls))
        try:
            return [self._checked(answer) for answer in jsonrpc.decode_answers(body, len(calls))]
        except jsonrpc.BatchRefused:
            self._takes_batches = False
        except jsonrpc.BadBody as error:
            if status == HTTPStatus.OK:
                raise self._failed(_bad(status, error)) from error
            self._takes_batches = False
        return await self._singles(calls)

    async def _singles(self, calls: Calls) -> Answers:
        answers: Answers = []
        for start in range(0, len(calls), _SINGLES_AT_ONCE):
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._one_or_failure(*call), name=call[0])
                    for call in calls[start : start + _SINGLES_AT_ONCE]
                ]
            for task in tasks:
                answer = task.result()
                if isinstance(answer, EndpointFailed):
                    raise answer
                answers.append(answer)
        return answers

    async def _one_or_failure(self, method: str, params: Sequence[object]) -> Any:
        try:
            return await self._one(method, params)
        except EndpointFailed as error:
            return error

    async def _post(self, body: bytes) -> tuple[int, bytes]:
        url = self._url.current()
        try:
            async with asyncio.timeout(self._timeout_seconds):
                status, answer = await self._transport.post(url, body)
        except TimeoutError:
            raise self._failed(f"no answer within {self._timeout_seconds:g} s") from None
        except TransportFailed as error:
            raise self._failed(str(error)) from error
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _REFUSED_STATUSES:
            raise self._failed(f"HTTP {status}")
        return status, answer

    def _checked(self, answer: Any | RpcError) -> Any | RpcError:
        if not isinstance(answer, RpcError):
            return answer
        answer = RpcError(answer.code, self._scrubbed(answer.message), answer.data)
        if jsonrpc.judge(answer) is jsonrpc.Verdict.ENDPOINT:
            raise self._failed(f"refused: {answer}")
        return answer

    def _failed(self, reason: str) -> EndpointFailed:
        return EndpointFailed(self._scrubbed(reason))

    def _scrubbed(self, text: str) -> str:
        """Return ``text`` without what may be a key: long path segments, passwords, queries."""
        url = self._url.current()
        try:
            parts = urlsplit(url)
        except ValueError:
            return text.replace(url, "***") if url else text
        secrets = [url, parts.query, *parts.query.replace("&", "=").split("=")]
        secrets += [parts.username or "", parts.password or "", *parts.path.split("/")]
        for secret in secrets:
            if len(secret) >= _SHORTEST_SECRET or (secret and secret == parts.password):
                text = text.replace(secret, "***")
        return text


_REFUSED_STATUSES: Final = frozenset(
    {
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.PAYMENT_REQUIRED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.TOO_MANY_REQUESTS,
    }
)


def _bad(status: int, error: jsonrpc.BadBody) -> str:
    return f"{error} (HTTP {status})"


def _field(block: object, name: str) -> object:
    return block.get(name) if isinstance(block, dict) else None
