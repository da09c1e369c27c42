"""One connection: bytes in, calls out to the receiver, answers back."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, cast

from aggregator.ingress import proxy
from aggregator.ingress.sockets import tune
from aggregator.ingress.statistics import Ending
from aggregator.ports import ReplyCode, Standing
from aggregator.settings import ProxyProtocol
from aligned.errors import MalformedMessage
from aligned.wire import messages
from aligned.wire.compiled import ResponseReader
from aligned.wire.gob import Basic, TypeMismatch
from aligned.wire.netrpc import Server

if TYPE_CHECKING:
    from aggregator.ingress.shared import Shared
    from aligned.wire.netrpc import Call

logger = logging.getLogger(__name__)

HEAD_SECONDS = 10.0
"""From the dial to the end of the CONNECT."""
MESSAGE_SECONDS = 30.0
"""From the first byte of a call to its last."""
UNREAD_SECONDS = 30.0
"""For a peer to begin to take its replies again."""
LINGER_SECONDS = 2.0
"""After our FIN, what still arrives is read and dropped for this long: closing a socket with unread
bytes resets the connection, and a reset may overtake the replies before it."""
UNPROVEN_CALLS = 4
"""Unanswered calls of a connection that has shown no good signature yet, or a bad one: junk costs a
pairing each, and what waits for its verdict counts against everybody."""
UNREAD_BYTES = 1 << 16
"""Replies that wait here for a peer to read; then it is not read from either."""

_METHODS = frozenset({messages.RESPOND, messages.SERVER_RUNNING})
_LINGERING = frozenset({Ending.IDLE, Ending.HUNG_UP, Ending.DRAINED, Ending.NOT_RPC})


class Connection(asyncio.Protocol):
    """The server's end of one connection, and the ``Caller`` of its calls.

    Resource handling:
        ``finish`` ends the traffic; the transport is closed then, or by a ``sweep`` soon after.
        Calls left open by any end are reported to the receiver once, from the event loop.
    """

    def __init__(self, shared: Shared) -> None:
        self._standing = Standing()
        self._peer = ("unknown", 0)
        self._shared = shared
        self._server = Server(_METHODS)
        self._reader = ResponseReader(self._server.types, shared.memory)
        self._transport: asyncio.Transport | None = None
        self._proxy_head: bytes | None = None
        self._open: set[int] = set()
        self._since = self._made = shared.clock()
        """Of ``_since``: the last answer, last call taken or first byte of the next one."""
        self._unread_since: float | None = None
        self._ending: Ending | None = None
        self._end_by = 0.0
        self._flushing = self._holding = self._half_closed = self._complained = False

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=UNREAD_BYTES)
        tune(transport.get_extra_info("socket"))
        self._peer = (transport.get_extra_info("peername") or self._peer)[:2]
        shared = self._shared
        shared.connected(self)
        if not shared.census.arrive(self):
            self._turn_away()
        elif shared.draining:
            self.finish(Ending.DRAINED)
        elif shared.listen.proxy_protocol is not ProxyProtocol.OFF and (
            shared.trust.covers(self._peer[0])
        ):
            self._proxy_head = b""
        else:
            self._locate()

    def _locate(self) -> None:
        if not self._shared.census.locate(self, self._peer[0]):
            self._turn_away()

    def _turn_away(self) -> None:
        if self._shared.may_log():
            logger.warning(
                "no room for a connection: raise listen.max_connections (or, if it is set, "
                "listen.max_connections_per_source)",
                extra={"source": self.source},
            )
        self.finish(Ending.FULL)

    def data_received(self, data: bytes) -> None:
        self._shared.statistics.bytes_in += len(data)
        if self._ending is not None:
            return
        if not self._server.in_message:
            self._since = self._shared.clock()
        if self._proxy_head is not None:
            data = self._without_proxy_head(self._proxy_head + data)
        self._server.feed(data)
        self.proceed()

    def _without_proxy_head(self, data: bytes) -> bytes:
        try:
            header = proxy.read(self._shared.listen.proxy_protocol, data)
        except MalformedMessage as error:
            self._reject(error)
            return b""
        if header is None:
            self._proxy_head = data
            return b""
        self._proxy_head = None
        self._peer = header.source or self._peer
        self._locate()
        return data[header.size :]

    def eof_received(self) -> bool:
        self._half_closed = True
        self.proceed()
        return self._ending is None

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._end(Ending.PEER)
        self._shared.census.leave(self)
        self._shared.disconnected(self)

    def pause_writing(self) -> None:
        self._unread_since = self._shared.clock()
        self._steer()

    def resume_writing(self) -> None:
        self._unread_since = None
        self.proceed()

    # From bytes to calls.

    def proceed(self) -> None:
        """Take the calls that have arrived, as many as may be taken now."""
        try:
            while self._takes_calls and (call := self._server.next_call()) is not None:
                self._since = self._shared.clock()
                self._take(call)
        except MalformedMessage as error:
            self._reject(error)
        self._steer()

    @property
    def _takes_calls(self) -> bool:
        shared, calls = self._shared, len(self._open)
        return (
            calls < shared.listen.max_calls_per_connection
            and (calls < UNPROVEN_CALLS or self._standing.is_proven)
            and not shared.paused
            and not shared.draining
            and self._unread_since is None
            and self._ending is None
        )

    def _take(self, call: Call) -> None:
        if call.method == messages.SERVER_RUNNING:
            self._shared.statistics.probes += 1
            self._server.reply(call.method, call.seq, 1, Basic.INT)
            return
        if call.seq in self._open:
            raise MalformedMessage("two open calls have one number")
        try:
            response = self._reader.read(call.argument)
        except TypeMismatch as error:
            self._shared.statistics.errors += 1
            self._server.reply_error(call.method, call.seq, str(error))
        except messages.BadResponse as error:
            self._refuse(call, error.reason)
        else:
            if self._standing.is_proven:  # or calls of invented operators could keep all others out
                self._shared.census.busy(self)
            self._open.add(call.seq)
            self._shared.statistics.calls += 1
            self._shared.statistics.calls_open += 1
            self._shared.receiver.receive(response, self, call.seq)

    def _refuse(self, call: Call, reason: messages.Reason) -> None:
        self._shared.statistics.refused[reason] += 1
        self._server.reply(call.method, call.seq, ReplyCode.REFUSED)
        if self._may_complain():
            logger.warning(
                "refused a response that can never be right: tell the operator behind this address",
                extra={"source": self.source, "reason": str(reason)},
            )

    def _reject(self, error: MalformedMessage) -> None:
        self._shared.statistics.malformed[str(error)] += 1
        if self._may_complain():
            logger.info(
                "closed a connection that broke the protocol",
                extra={"source": self.source, "reason": str(error)},
            )
        self.finish(Ending.MALFORMED)

    def _may_complain(self) -> bool:
        first, self._complained = not self._complained, True
        return first and self._shared.may_log()

    def _steer(self) -> None:
        """Decide what is next: end, stop reading or go on, and have replies written."""
        if self._ending is not None:
            return
        over = self._over()
        if over is not None:
            self.finish(over)
            return
        if self._shared.paused:
            self._shared.hold(self)
        if not self._takes_calls:
            self._hold()
        elif self._holding:
            self._release()
        if self._server.has_output:
            self._flush_soon()

    def _over(self) -> Ending | None:
        if self._server.ended:
            return Ending.NOT_RPC
        if not self._open and self._shared.draining:
            return Ending.DRAINED
        if not self._open and self._half_closed and self._takes_calls:
            return Ending.PEER
        return None

    def _hold(self) -> None:
        if not self._holding and self._transport is not None:
            self._holding = True
            self._transport.pause_reading()

    def _release(self) -> None:
        self._holding = False
        self._since = self._shared.clock()
        if self._transport is not None:
            self._transport.resume_reading()

    # The ``Caller`` of this connection's calls.

    @property
    def standing(self) -> Standing:
        return self._standing

    @property
    def source(self) -> str:
        return f"{self._peer[0]}:{self._peer[1]}"

    def answer(self, seq: int, code: ReplyCode) -> None:
        if self._closes(seq):
            self._server.reply(messages.RESPOND, seq, code)
            self._flush_soon()

    def fail(self, seq: int, error: str) -> None:
        if self._closes(seq):
            self._server.reply_error(messages.RESPOND, seq, error)
            self._flush_soon()

    def _closes(self, seq: int) -> bool:
        if seq not in self._open:
            return False
        self._open.remove(seq)
        self._shared.statistics.calls_open -= 1
        return True

    def hang_up(self) -> None:
        self.finish(Ending.HUNG_UP)

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._shared.flush_soon(self)

    def flush(self) -> None:
        """Write all replies since the last time at once; see ``Shared.flush_soon``."""
        self._flushing = False
        if self._ending is not None:
            return
        self._write()
        self._since = self._shared.clock()
        if not self._open:
            self._shared.census.rest(self)
        if self._holding or self._half_closed or self._shared.draining:
            self.proceed()

    def _write(self) -> None:
        data = self._server.take_output()
        if data and self._transport is not None and not self._transport.is_closing():
            self._shared.statistics.bytes_out += len(data)
            self._transport.write(data)

    # Ends.

    def finish(self, ending: Ending) -> None:
        """Write what was answered and close; open calls are not answered. Repeats do nothing."""
        if not self._end(ending) or self._transport is None:
            return
        self._write()
        self._end_by = self._shared.clock() + LINGER_SECONDS
        if ending not in _LINGERING or self._half_closed or self._transport.is_closing():
            self._transport.close()
            return
        self._transport.write_eof()
        if self._holding:
            self._transport.resume_reading()

    def _end(self, ending: Ending) -> bool:
        if self._ending is not None:
            return False
        self._ending = ending
        self._shared.ended(ending)
        self._shared.census.rest(self)
        if self._open:
            self._shared.statistics.calls_open -= len(self._open)
            self._open.clear()
            self._shared.call_soon(self._shared.receiver.dropped, self)
        return True

    def abort(self, ending: Ending) -> None:
        """Close without writing what is still to be sent."""
        self._end(ending)
        if self._transport is not None:
            self._transport.abort()

    def evict(self) -> None:
        """Make room at once."""
        if self._ending is None:
            self.finish(Ending.EVICTED)
        else:
            self.abort(Ending.EVICTED)

    def sweep(self, now: float) -> None:
        """End the connection if it has used up one of its deadlines."""
        if self._ending is not None:
            if now >= self._end_by:
                self.abort(self._ending)
        elif self._unread_since is not None:
            if now - self._unread_since > UNREAD_SECONDS:
                self.abort(Ending.SLOW_READER)
        elif not self._holding:
            overdue = self._overdue(now)
            if overdue is not None:
                self.finish(overdue)

    def _overdue(self, now: float) -> Ending | None:
        if not self._server.connected:
            return Ending.SLOW_HEAD if now - self._made > HEAD_SECONDS else None
        if self._server.in_message:
            return Ending.SLOW_MESSAGE if now - self._since > MESSAGE_SECONDS else None
        idle = not self._open and now - self._since > self._shared.listen.idle_timeout
        return Ending.IDLE if idle else None
