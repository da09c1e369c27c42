"""Go's net/rpc over HTTP CONNECT as two state machines fed with bytes: ``Server`` and ``Client``.

Neither reads a socket or a clock. Bytes go in through ``feed`` as they come, in any pieces; calls
or replies come out one by one, so that the owner can stop between two.

Source: Go, packages ``net/rpc`` and ``encoding/gob``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from aligned.errors import MalformedMessage
from aligned.wire import gob, http_connect
from aligned.wire.gob import Basic, Struct, TypeMismatch
from aligned.wire.gob_stream import Incoming, Item, Outgoing, encode_value, message

if TYPE_CHECKING:
    from collections.abc import Collection

    from aligned.wire.gob import Value
    from aligned.wire.gob_types import Types

REQUEST = Struct("Request", (("ServiceMethod", Basic.STRING), ("Seq", Basic.UINT)))
RESPONSE = Struct(
    "Response", (("ServiceMethod", Basic.STRING), ("Seq", Basic.UINT), ("Error", Basic.STRING))
)
NOTHING = Struct("", ())
"""Go's ``struct{}``: the argument of a method that takes none, and the body of an error."""

_SERVER_FIRST_ID = 74
"""Any id from 64 on would do; this one makes replies equal to those captured from a Go server."""
CLIENT_FIRST_ID = 65
"""Of Go up to 1.20; newer ones begin at 64."""


class Call(NamedTuple):
    """One request as it came."""

    method: str
    """One of those the server was made for."""
    seq: int
    """The client's number for it, below 2**64."""
    argument: Item
    """Not decoded yet; its types are in ``Server.types``."""


class Server:
    """The server's side of one connection.

    After ``MalformedMessage`` it is finished. It writes nothing before the first request but the
    answer to the CONNECT: a Go client would lose it.
    """

    def __init__(self, methods: Collection[str]) -> None:
        self._methods = methods
        self._services = {method.rpartition(".")[0] for method in methods}
        self._head: bytes | None = b""
        self._incoming = Incoming()
        self._outgoing = Outgoing(_SERVER_FIRST_ID)
        self._header: tuple[str, int] | None = None
        self._usual: tuple[bytes, str] | None = None
        self._prefixes: dict[str, bytes] = {}
        self._output: list[bytes] = []
        self.ended = False
        """An HTTP error was answered: no call will come, the connection ends after the output."""

    @property
    def connected(self) -> bool:
        """Whether the CONNECT was answered."""
        return self._head is None

    @property
    def types(self) -> Types:
        """What the client has defined."""
        return self._incoming.types

    @property
    def in_message(self) -> bool:
        """Whether a call, or the head, has begun but not ended."""
        return bool(self._head) or self._header is not None or self._incoming.pending

    def feed(self, data: bytes) -> None:
        """Take the next bytes, as many as came."""
        if self._head is None:
            self._incoming.feed(data)
        else:
            self._head += data

    def next_call(self) -> Call | None:
        """Return the next call, or None until more bytes come.

        Calls that cannot be served are answered on the way; see ``take_output``.

        Raises:
            MalformedMessage: The client does not speak the protocol.
        """
        if self._head is not None and not self._connect(self._head):
            return None
        while (item := self._incoming.next_item()) is not None:
            if self._header is None:
                self._header = self._read_header(item)
                continue
            (method, seq), self._header = self._header, None
            if method in self._methods:
                return Call(method, seq, item)
            self.reply_error(method, seq, self._cannot_find(method))
        return None

    def _connect(self, head: bytes) -> bool:
        if self.ended:
            self._head = b""
            return False
        parts = http_connect.split(head)
        if parts is None:
            return False
        line, rest = parts
        answer = http_connect.answer(line)
        self._output.append(answer.data)
        self.ended = not answer.connected
        if answer.connected:
            self._head = None
            self._incoming.feed(rest)
        return answer.connected

    def _read_header(self, item: Item) -> tuple[str, int]:
        if self._usual is not None:
            start, method = self._usual
            if item.data.startswith(start):
                seq, at = gob.read_uint(item.data, len(start))
                if item.data[at:] == b"\0":
                    return method, seq
        try:
            self.types.require(item.type_id, REQUEST)
            header = self.types.decode(*item)
        except TypeMismatch as error:
            raise MalformedMessage("a request header is of another type") from error
        method, seq = _text(header, "ServiceMethod"), _number(header, "Seq")
        if method in self._methods and self.types.is_exactly(item.type_id, REQUEST):
            named = gob.encode_uint(len(method)) + method.encode()
            self._usual = gob.encode_int(item.type_id) + b"\1" + named + b"\1", method
        return method, seq

    def _cannot_find(self, method: str) -> str:
        if "." not in method:
            return f"rpc: service/method request ill-formed: {method}"
        if method.rpartition(".")[0] not in self._services:
            return f"rpc: can't find service {method}"
        return f"rpc: can't find method {method}"

    @property
    def has_output(self) -> bool:
        """Whether ``take_output`` would return anything."""
        return bool(self._output)

    def take_output(self) -> bytes:
        """Return what is to be sent now, in this order, and forget it.

        Replies are encoded when they are given, and the first ones define types for the rest.
        """
        output = b"".join(self._output)
        self._output.clear()
        return output

    def reply(self, method: str, seq: int, value: int, kind: Basic = Basic.UINT) -> None:
        """Answer call ``seq`` with a number; see ``take_output``."""
        prefix = self._prefixes.get(method)
        if prefix is None or not seq:
            header = self._reply_header(method, seq, "")
        else:
            header = message(prefix + gob.encode_uint(seq) + b"\0")
        body = message(gob.encode_int(kind) + b"\0" + encode_value(kind, value))
        self._output.append(header + body)

    def reply_error(self, method: str, seq: int, error: str) -> None:
        """Answer call ``seq`` with an error; see ``take_output``."""
        header = self._reply_header(method, seq, error)
        self._output.append(header + self._outgoing.encode(NOTHING, {}))

    def _reply_header(self, method: str, seq: int, error: str) -> bytes:
        fields: Value = {"ServiceMethod": method, "Seq": seq, "Error": error}
        header = self._outgoing.encode(RESPONSE, fields)
        if method in self._methods and method not in self._prefixes:
            named = gob.encode_uint(len(method)) + method.encode()
            type_id = gob.encode_int(_SERVER_FIRST_ID)
            self._prefixes[method] = type_id + b"\1" + named + b"\1"
        return header


class Reply(NamedTuple):
    """One answer as it came."""

    method: str
    seq: int
    error: str
    """Empty if the call succeeded."""
    value: int | None
    """What the method returned; None beside an error."""


class Client:
    """The client's side of one connection: writes what a Go client writes.

    After ``MalformedMessage`` it is finished.
    """

    def __init__(self, first_id: int = CLIENT_FIRST_ID) -> None:
        self._head: bytes | None = b""
        self._incoming = Incoming()
        self._outgoing = Outgoing(first_id)
        self._header: Value | None = None
        self._next_seq = 0

    @property
    def connected(self) -> bool:
        """Whether the server accepted; a Go client calls only then."""
        return self._head is None

    def dial(self) -> bytes:
        """Return the bytes that open the connection."""
        return http_connect.REQUEST

    def call(self, method: str, argument: Struct, value: Value) -> tuple[int, bytes]:
        """Return the call's number, counting from 0, and its bytes. Each must be sent, in order."""
        seq = self._next_seq
        self._next_seq += 1
        header: Value = {"ServiceMethod": method, "Seq": seq}
        return seq, self._outgoing.encode(REQUEST, header) + self._outgoing.encode(argument, value)

    def feed(self, data: bytes) -> None:
        """Take the next bytes, as many as came."""
        if self._head is None:
            self._incoming.feed(data)
        else:
            self._head += data

    def next_reply(self) -> Reply | None:
        """Return the next reply, or None until more bytes come.

        Raises:
            MalformedMessage: The server does not speak the protocol, or did not accept.
        """
        if self._head is not None and not self._accept(self._head):
            return None
        while (item := self._incoming.next_item()) is not None:
            if self._header is None:
                self._header = self._decode(item)
                continue
            header, self._header = self._header, None
            error = _text(header, "Error")
            body = None if error else self._decode(item)
            return Reply(
                _text(header, "ServiceMethod"),
                _number(header, "Seq"),
                error,
                body if isinstance(body, int) else None,
            )
        return None

    def _accept(self, head: bytes) -> bool:
        parts = http_connect.split(head)
        if parts is None:
            return False
        line, rest = parts
        http_connect.check_connected(line)
        self._head = None
        self._incoming.feed(rest)
        return True

    def _decode(self, item: Item) -> Value:
        try:
            return self._incoming.types.decode(*item)
        except TypeMismatch as error:
            raise MalformedMessage("a reply is of another type") from error


def _text(header: Value, name: str) -> str:
    text = header.get(name, "") if isinstance(header, dict) else None
    if not isinstance(text, str):
        raise MalformedMessage("a header is of another type")
    return text


def _number(header: Value, name: str) -> int:
    number = header.get(name, 0) if isinstance(header, dict) else None
    if not isinstance(number, int):
        raise MalformedMessage("a header is of another type")
    return number
