from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from aligned.errors import MalformedMessage
from aligned.wire import gob
from aligned.wire.gob import Array, Basic, Local, Slice, Struct, TypeMismatch, Value
from aligned.wire.gob_stream import Incoming, Outgoing, encode_value, message
from aligned.wire.gob_types import Types

PAIR = Struct("Pair", (("A", Basic.UINT), ("B", Basic.STRING)))


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (7, "07"),
        (127, "7f"),
        (128, "ff80"),
        (255, "ffff"),
        (256, "fe0100"),
        (2**64 - 1, "f8ffffffffffffffff"),
    ],
)
def test_unsigned_integers_are_written_as_go_does(value: int, encoded: str) -> None:
    assert gob.encode_uint(value).hex() == encoded
    assert gob.read_uint(bytes.fromhex(encoded), 0) == (value, len(encoded) // 2)


@pytest.mark.parametrize(
    ("value", "encoded"), [(0, "00"), (-1, "01"), (1, "02"), (-64, "7f"), (-65, "ff81")]
)
def test_signed_integers_are_written_as_go_does(value: int, encoded: str) -> None:
    assert gob.encode_int(value).hex() == encoded
    assert gob.read_int(bytes.fromhex(encoded), 0) == (value, len(encoded) // 2)


@given(st.integers(0, 2**64 - 1), st.integers(-(2**63), 2**63 - 1))
def test_integers_come_back(unsigned: int, signed: int) -> None:
    assert gob.read_uint(gob.encode_uint(unsigned), 0)[0] == unsigned
    assert gob.read_int(gob.encode_int(signed), 0)[0] == signed


def test_integers_longer_than_needed_are_accepted() -> None:
    assert gob.read_uint(b"\xfe\x00\x05", 0) == (5, 3)


@pytest.mark.parametrize("data", ["", "ff", "f80102", "80", "f7", "f7000000000000000000"])
def test_broken_integers_are_malformed(data: str) -> None:
    with pytest.raises(MalformedMessage):
        gob.read_uint(bytes.fromhex(data), 0)


def sent(local: Local, value: Value, first_id: int = 65) -> Incoming:
    incoming = Incoming()
    incoming.feed(Outgoing(first_id).encode(local, value))
    return incoming


def received(incoming: Incoming) -> Value:
    item = incoming.next_item()
    assert item is not None
    return incoming.types.decode(*item)


def locals_(depth: int = 3) -> st.SearchStrategy[Local]:
    basic: st.SearchStrategy[Local] = st.sampled_from(
        [Basic.UINT, Basic.INT, Basic.STRING, Basic.BYTES, Basic.BOOL]
    )
    if not depth:
        return basic
    inner = locals_(depth - 1)
    names = st.text(st.characters(categories=["Lu", "Ll"]), max_size=4)
    return st.one_of(
        basic,
        st.builds(Array, names, inner, st.integers(0, 4)),
        st.builds(Slice, inner),
        st.builds(Struct, names, fields_of(inner)),
    )


def fields_of(inner: st.SearchStrategy[Local]) -> st.SearchStrategy[tuple[tuple[str, Local], ...]]:
    return st.lists(inner, max_size=4).map(
        lambda parts: tuple((f"F{number}", part) for number, part in enumerate(parts))
    )


BASIC_VALUES: dict[Basic, st.SearchStrategy[Value]] = {
    Basic.UINT: st.integers(0, 2**64 - 1),
    Basic.INT: st.integers(-(2**63), 2**63 - 1),
    Basic.BOOL: st.booleans(),
    Basic.STRING: st.text(max_size=4),
    Basic.BYTES: st.binary(max_size=4),
}


def values_of(local: Local) -> st.SearchStrategy[Value]:
    match local:
        case Basic():
            return BASIC_VALUES[local]
        case Array():
            length = local.length
            return st.lists(values_of(local.elem), min_size=length, max_size=length)
        case Slice():
            return st.lists(values_of(local.elem), max_size=3)
        case Struct():
            return st.fixed_dictionaries({name: values_of(part) for name, part in local.fields})


def without_zeros(local: Local, value: Value) -> Value:
    """Return what arrives of ``value``: a sender leaves zero fields out."""
    if isinstance(local, Array | Slice) and isinstance(value, list):
        return [without_zeros(local.elem, element) for element in value]
    if isinstance(local, Struct) and isinstance(value, dict):
        kept = {name: without_zeros(part, value[name]) for name, part in local.fields}
        return {
            name: kept[name]
            for name, part in local.fields
            if kept[name] or isinstance(part, Array | Struct)
        }
    return value


@given(st.data(), st.integers(64, 1 << 20))
def test_values_of_any_type_come_back(data: st.DataObject, first_id: int) -> None:
    local = data.draw(locals_())
    value = data.draw(values_of(local))
    assert received(sent(local, value, first_id)) == without_zeros(local, value)


@given(st.binary(max_size=64), st.data())
def test_arbitrary_bytes_are_a_value_or_malformed(noise: bytes, data: st.DataObject) -> None:
    stream = Outgoing(65).encode(PAIR, {"A": 1, "B": "b"})
    cut = data.draw(st.integers(0, len(stream)))
    incoming = Incoming()
    incoming.feed(stream[:cut] + noise + stream[cut:])
    try:
        while (item := incoming.next_item()) is not None:
            incoming.types.decode(*item)
    except (MalformedMessage, TypeMismatch):
        pass
    else:
        assert incoming.next_item() is None


@given(st.data())
def test_the_way_a_stream_is_cut_changes_nothing(data: st.DataObject) -> None:
    outgoing = Outgoing(65)
    stream = b"".join(outgoing.encode(PAIR, {"A": n, "B": "b" * n}) for n in range(3))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)))))
    incoming = Incoming()
    found: list[Value] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        incoming.feed(stream[start:end])
        while (item := incoming.next_item()) is not None:
            found.append(incoming.types.decode(*item))
    assert found == [{}, {"A": 1, "B": "b"}, {"A": 2, "B": "bb"}]
    assert not incoming.pending


def test_fields_are_matched_by_name_in_any_order() -> None:
    turned = Struct("Other", (("B", Basic.STRING), ("C", Basic.INT), ("A", Basic.UINT)))
    incoming = sent(turned, {"A": 1, "B": "b", "C": -5})
    item = incoming.next_item()
    assert item is not None
    incoming.types.require(item.type_id, PAIR)
    assert incoming.types.decode(*item) == {"A": 1, "B": "b", "C": -5}


def test_a_definition_may_refer_to_a_later_one() -> None:
    outer = Struct("Outer", (("Inner", PAIR),))
    stream = Outgoing(65).encode(outer, {"Inner": {"A": 3}})
    first, second = message_lengths(stream)[:2]
    incoming = Incoming()
    incoming.feed(stream[first : first + second] + stream[:first] + stream[first + second :])
    assert received(incoming) == {"Inner": {"A": 3}}


def message_lengths(stream: bytes) -> list[int]:
    lengths: list[int] = []
    at = 0
    while at < len(stream):
        size, start = gob.read_uint(stream, at)
        lengths.append(start + size - at)
        at = start + size
    return lengths


def definition(type_id: int, kind: str, content: Value) -> bytes:
    """Return the definition of ``type_id`` with any content, also what Go would never write."""
    common = Struct("CommonType", (("Name", Basic.STRING), ("Id", Basic.INT)))
    field = Struct("fieldType", (("Name", Basic.STRING), ("Id", Basic.INT)))
    marshaler = Struct("", (("CommonType", common),))
    wire_type = Struct(
        "wireType",
        (
            ("ArrayT", Struct("", (("C", common), ("Elem", Basic.INT), ("Len", Basic.INT)))),
            ("SliceT", Struct("", (("C", common), ("Elem", Basic.INT)))),
            ("StructT", Struct("", (("C", common), ("Field", Slice(field))))),
            ("MapT", Struct("", (("C", common), ("Key", Basic.INT), ("Elem", Basic.INT)))),
            ("GobEncoderT", marshaler),
        ),
    )
    return message(gob.encode_int(-type_id) + encode_value(wire_type, {kind: content}))


def struct_definition(type_id: int, *fields: tuple[str, int]) -> bytes:
    named: list[Value] = [{"Name": name, "Id": field_id} for name, field_id in fields]
    return definition(type_id, "StructT", {"Field": named})


UINT_ARRAY = definition(65, "ArrayT", {"Elem": 3, "Len": 2})


def value(type_id: int, content: str) -> bytes:
    return message(gob.encode_int(type_id) + bytes.fromhex(content))


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(b"\x00", id="empty message"),
        pytest.param(b"\xfe\x20\x01", id="message over 8 KiB"),
        pytest.param(b"\xf8" + b"\xff" * 8, id="message of 2**64 bytes"),
        pytest.param(b"\x90", id="length of more than 8 bytes"),
        pytest.param(struct_definition(63, ("A", 3)), id="built-in id re-defined"),
        pytest.param(UINT_ARRAY * 2, id="id defined twice"),
        pytest.param(
            b"".join(struct_definition(64 + n, ("A", 3)) for n in range(65)),
            id="more than 64 definitions",
        ),
        pytest.param(
            b"".join(struct_definition(64 + n, ("A" * 1000, 3)) for n in range(3)),
            id="definitions over 2 KiB",
        ),
        pytest.param(definition(65, "ArrayT", {"Elem": 3, "Len": 65}), id="array over 64"),
        pytest.param(definition(65, "ArrayT", {"Elem": 3, "Len": -1}), id="negative array length"),
        pytest.param(
            struct_definition(65, *((f"F{n}", 3) for n in range(17))), id="more than 16 fields"
        ),
        pytest.param(struct_definition(65, ("A", 3), ("A", 3)), id="field named twice"),
        pytest.param(struct_definition(65, ("", 3)), id="field without name"),
        pytest.param(message(gob.encode_int(-65) + b"\x00"), id="definition of nothing"),
        pytest.param(message(gob.encode_int(-65) + b"\x09"), id="definition of unknown kind"),
        pytest.param(
            message(gob.encode_int(-65) + b"\x03\x00\x00\x00"), id="bytes after a definition"
        ),
        pytest.param(message(gob.encode_int(-65) + b"\x01"), id="definition cut off"),
        pytest.param(UINT_ARRAY + value(65, "000201"), id="array cut off"),
        pytest.param(UINT_ARRAY + value(65, "0003010203"), id="array longer than its type"),
        pytest.param(UINT_ARRAY + value(65, "00020102ff"), id="bytes after a value"),
        pytest.param(UINT_ARRAY + value(65, "01020102"), id="no struct, not after zero"),
        pytest.param(value(70, "00"), id="value of an undefined type"),
        pytest.param(value(6, "0005ffff"), id="string cut off"),
        pytest.param(value(6, "0002ffff"), id="string that is not UTF-8"),
        pytest.param(struct_definition(65, ("A", 3)) + value(65, "02"), id="field out of bounds"),
        pytest.param(struct_definition(65, ("A", 3)) + value(65, "01"), id="struct cut off"),
        pytest.param(struct_definition(65, ("A", 99)) + value(65, "010100"), id="field undefined"),
        pytest.param(
            struct_definition(65, ("A", 65)) + value(65, "01" * 9 + "00" * 10),
            id="recursive struct nine deep",
        ),
        pytest.param(
            definition(65, "SliceT", {"Elem": 65}) + value(65, "00" + "01" * 9 + "00"),
            id="recursive slice nine deep",
        ),
        pytest.param(
            definition(65, "SliceT", {"Elem": 3}) + value(65, "00f8ffffffffffffffff"),
            id="slice of 2**64",
        ),
    ],
)
def test_what_breaks_a_rule_or_a_limit_is_malformed(stream: bytes) -> None:
    incoming = Incoming()
    incoming.feed(stream)
    with pytest.raises(MalformedMessage):
        received(incoming)


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(
            b"".join(struct_definition(64 + n, ("A", 3)) for n in range(64)) + value(64, "010500"),
            id="64 definitions",
        ),
        pytest.param(
            definition(65, "ArrayT", {"Elem": 3, "Len": 64}) + value(65, "0040" + "05" * 64),
            id="array of 64",
        ),
        pytest.param(
            struct_definition(65, *((f"F{n}", 3) for n in range(16))) + value(65, "100500"),
            id="16 fields",
        ),
        pytest.param(
            struct_definition(65, ("A", 65)) + value(65, "01" * 7 + "00" * 8), id="eight deep"
        ),
        pytest.param(value(5, "00" + "fe1ffb" + "05" * 8187), id="message of 8 KiB"),
    ],
)
def test_what_just_keeps_a_limit_is_decoded(stream: bytes) -> None:
    incoming = Incoming()
    incoming.feed(stream)
    assert received(incoming)
    assert not incoming.pending


@pytest.mark.parametrize("kind", ["MapT", "GobEncoderT"])
def test_maps_and_own_encodings_may_be_defined_but_not_sent(kind: str) -> None:
    incoming = Incoming()
    incoming.feed(definition(65, kind, {}) + struct_definition(66, ("A", 3), ("M", 65)))
    incoming.feed(value(66, "010500"))
    assert received(incoming) == {"A": 5}
    incoming.feed(value(66, "02010000"))
    with pytest.raises(TypeMismatch):
        received(incoming)


def types_of(stream: bytes) -> Types:
    incoming = Incoming()
    incoming.feed(stream)
    assert incoming.next_item() is None
    return incoming.types


WANTED = Struct("Wanted", (("A", Array("[2]uint8", Basic.UINT, 2)), ("S", PAIR)))


@pytest.mark.parametrize(
    ("stream", "text"),
    [
        (UINT_ARRAY, "gob: type mismatch in decoder: want struct type Wanted; got non-struct"),
        (
            struct_definition(65, ("X", 3)),
            "gob: type mismatch: no fields matched compiling decoder for Wanted",
        ),
        (struct_definition(65, ("A", 3)), "gob: wrong type ([2]uint8) for received field .A"),
        (
            struct_definition(65, ("A", 66)) + definition(66, "ArrayT", {"Elem": 3, "Len": 3}),
            "gob: wrong type ([2]uint8) for received field .A",
        ),
        (
            struct_definition(65, ("A", 66)) + definition(66, "ArrayT", {"Elem": 2, "Len": 2}),
            "gob: wrong type ([2]uint8) for received field .A",
        ),
        (
            struct_definition(65, ("A", 66)) + definition(66, "ArrayT", {"Elem": 3, "Len": 2}),
            "gob: type mismatch:  lacks field S",
        ),
        (
            struct_definition(65, ("A", 66), ("S", 67))
            + definition(66, "ArrayT", {"Elem": 3, "Len": 2})
            + struct_definition(67, ("A", 2), ("B", 6)),
            "gob: wrong type (uint64) for received field .A",
        ),
        (b"", "gob: unknown type id or corrupted data"),
    ],
)
def test_another_type_than_wanted_is_told_in_the_words_of_go(stream: bytes, text: str) -> None:
    with pytest.raises(TypeMismatch) as caught:
        types_of(stream).require(65, WANTED)
    assert str(caught.value) == text


def test_a_value_of_another_shape_than_its_type_is_not_encoded() -> None:
    with pytest.raises(TypeError):
        encode_value(PAIR, {"A": "one"})
    with pytest.raises(TypeError):
        encode_value(PAIR, [])
