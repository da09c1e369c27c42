"""A web3.py provider over ``Endpoints``, for whoever wants ``AsyncWeb3`` with this failover.

Apart from the rest because importing web3 costs most of a second and 60 MB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from eth_hash.auto import keccak
from web3.providers.async_base import AsyncJSONBaseProvider

from aligned.chain.reverts import SendRefusal, send_refusal
from aligned.chain.rpc import RpcError, to_bytes
from aligned.errors import ChainUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from web3.types import RPCEndpoint, RPCResponse

    from aligned.chain.rpc import Rpc


class EndpointsProvider(AsyncJSONBaseProvider):
    """Carries web3.py's requests; retries nothing beyond what ``Rpc`` does.

    ``eth_sendRawTransaction`` goes to all endpoints.
    """

    def __init__(self, rpc: Rpc) -> None:
        super().__init__()
        self._rpc = rpc

    async def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        """Return a JSON-RPC answer; a refusal is one too.

        Raises:
            ChainUnavailable: No endpoint answers.
        """
        try:
            if method == "eth_sendRawTransaction":
                return _response(await self._send(params))
            return _response(await self._rpc.call(method, _plain(params)))
        except RpcError as refusal:
            return _response(refusal)

    async def _send(self, params: Sequence[object]) -> object:
        raw = params[0] if isinstance(params[0], bytes) else to_bytes(params[0])
        broadcast = await self._rpc.broadcast(raw)
        if broadcast.is_accepted:
            return "0x" + keccak(raw).hex()
        for refusal in broadcast.refusals:
            if send_refusal(refusal) is not SendRefusal.UNKNOWN:
                return refusal
        if broadcast.refusals:
            return broadcast.refusals[0]
        reasons = "; ".join(f"{sent.endpoint}: {sent.reason}" for sent in broadcast.sent)
        msg = f"no endpoint answers: {reasons}"
        raise ChainUnavailable(msg)

    async def make_batch_request(
        self, requests: list[tuple[RPCEndpoint, Any]]
    ) -> list[RPCResponse] | RPCResponse:
        """Return the answers in order.

        Raises:
            ChainUnavailable: No endpoint answers.
        """
        calls = [(str(method), _plain(params)) for method, params in requests]
        return [_response(answer) for answer in await self._rpc.call_many(calls)]

    async def is_connected(self, show_traceback: bool = False) -> bool:  # noqa: FBT001, FBT002 - web3's signature
        """Tell whether an endpoint answers.

        Raises:
            ChainUnavailable: None does, and ``show_traceback`` is set.
            RpcError: It refuses, and ``show_traceback`` is set.
        """
        try:
            await self._rpc.call("eth_chainId", [])
        except (ChainUnavailable, RpcError):
            if show_traceback:
                raise
            return False
        return True


def _plain(params: Any) -> Sequence[object]:
    return list(params) if params else []


def _response(answer: object) -> RPCResponse:
    body: dict[str, object] = {"jsonrpc": "2.0", "id": 0}
    if isinstance(answer, RpcError):
        error: dict[str, object] = {"code": answer.code, "message": answer.message}
        if answer.data is not None:
            error["data"] = answer.data
        return cast("RPCResponse", body | {"error": error})
    return cast("RPCResponse", body | {"result": answer})
