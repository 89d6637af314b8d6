"""Commands and their exact replies, as Redis 7 gives them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from kv.machine import COMMANDS, VALUE_BYTES_MAX, KeyValueMachine, keys_of
from kv.operations import Command, Operation, Outcome

LARGEST = str((1 << 63) - 1)


def command(text: str) -> Command:
    """`"SET k ''"` as a command; two quotes are the empty string."""
    return tuple(b"" if word == "''" else word.encode() for word in text.split(" "))


def told(machine: KeyValueMachine, text: str, time_s: float = 1000.0) -> Any:
    """The value, or the failure as text after a dash."""
    outcome = machine.execute(Operation(command(text)), time_s)
    return f"-{outcome.failure}" if outcome.failure else outcome.value


SYNTAX = "-ERR syntax error"
INTEGER = "-ERR value is not an integer or out of range"

DIALOGUES: dict[str, list[tuple[str, Any]]] = {
    "GET of nothing is nil, of something its value": [("GET k", None), ("SET k v", "OK"), ("GET k", b"v")],
    "SET NX only where nothing is": [
        ("SET k 1 NX", "OK"),
        ("SET k 2 NX", None),
        ("GET k", b"1"),
    ],
    "SET XX only where something is": [
        ("SET k 1 XX", None),
        ("SET k 1", "OK"),
        ("SET k 2 xx", "OK"),
        ("GET k", b"2"),
    ],
    "SET GET tells what was there, whether it sets or not": [
        ("SET k 1 GET", None),
        ("SET k 2 GET", b"1"),
        ("SET k 3 NX GET", b"2"),
        ("GET k", b"2"),
        ("SET x 3 XX GET", None),
        ("GET x", None),
    ],
    "SET forgets the deadline, KEEPTTL keeps it": [
        ("SET k 1 EX 10", "OK"),
        ("SET k 2 KEEPTTL", "OK"),
        ("TTL k", 10),
        ("SET k 3", "OK"),
        ("TTL k", -1),
    ],
    "SET takes deadlines in four units": [
        ("SET a 1 EX 7", "OK"),
        ("PTTL a", 7000),
        ("SET b 1 PX 7", "OK"),
        ("PTTL b", 7),
        ("SET c 1 EXAT 1002", "OK"),
        ("PTTL c", 2000),
        ("SET d 1 PXAT 1000003", "OK"),
        ("PTTL d", 3),
        ("PEXPIRETIME d", 1000003),
        ("EXPIRETIME c", 1002),
    ],
    "SET with a deadline that has passed leaves nothing": [
        ("SET k 1", "OK"),
        ("SET k 2 EXAT 5", "OK"),
        ("GET k", None),
    ],
    "SET refuses what contradicts itself": [
        ("SET k 1 NX XX", SYNTAX),
        ("SET k 1 EX 1 PX 1", SYNTAX),
        ("SET k 1 EX 1 KEEPTTL", SYNTAX),
        ("SET k 1 EX", SYNTAX),
        ("SET k 1 NONSENSE", SYNTAX),
        ("SET k 1 PERSIST", SYNTAX),
        ("SET k 1 EX x", INTEGER),
        ("SET k 1 EX 0", "-ERR invalid expire time in 'set' command"),
        ("SET k 1 PX -5", "-ERR invalid expire time in 'set' command"),
        (f"SET k 1 EX {LARGEST}", "-ERR invalid expire time in 'set' command"),
        ("GET k", None),
    ],
    "older relatives of SET": [
        ("SETNX k 1", 1),
        ("SETNX k 2", 0),
        ("GETSET k 3", b"1"),
        ("SETEX k 5 4", "OK"),
        ("TTL k", 5),
        ("PSETEX k 5 4", "OK"),
        ("PTTL k", 5),
        ("SETEX k 0 4", "-ERR invalid expire time in 'setex' command"),
        ("GET k", b"4"),
    ],
    "APPEND makes, grows, keeps the deadline, tells the length": [
        ("APPEND k ab", 2),
        ("EXPIRE k 5", 1),
        ("APPEND k cd", 4),
        ("GET k", b"abcd"),
        ("TTL k", 5),
        ("STRLEN k", 4),
        ("STRLEN none", 0),
    ],
    "GETRANGE counts from both ends": [
        ("SET k 0123456789", "OK"),
        ("GETRANGE k 2 4", b"234"),
        ("GETRANGE k -3 -1", b"789"),
        ("GETRANGE k -100 1", b"01"),
        ("GETRANGE k 5 2", b""),
        ("GETRANGE k 0 -100", b""),
        ("GETRANGE none 0 -1", b""),
    ],
    "counters count from nothing, and keep the deadline": [
        ("INCR n", 1),
        ("INCRBY n 10", 11),
        ("DECR n", 10),
        ("EXPIRE n 9", 1),
        ("DECRBY n -5", 15),
        ("TTL n", 9),
        ("GET n", b"15"),
    ],
    "counters are 64 bits": [
        (f"SET n {LARGEST}", "OK"),
        ("INCR n", "-ERR increment or decrement would overflow"),
        ("GET n", LARGEST.encode()),
        (f"DECRBY n -{int(LARGEST) + 1}", "-ERR decrement would overflow"),
        ("INCRBY n 9223372036854775808", INTEGER),
    ],
    "counters take canonical integers only": [
        *(
            (f"SET n {text}", "OK") if i % 2 == 0 else ("INCR n", INTEGER)
            for text in ("x", "+1", "01", "1_0", "''", "-0")
            for i in range(2)
        ),
        ("INCRBY n 1.5", INTEGER),
    ],
    "MSET and MGET in one slot": [
        ("MSET {a}1 x {a}2 y {a}1 z", "OK"),
        ("MGET {a}1 {a}2 {a}3", [b"z", b"y", None]),
        ("MSETNX {a}3 x {a}1 y", 0),
        ("MSETNX {a}3 x {a}4 y", 1),
        ("EXISTS {a}1 {a}1 {a}3 {a}5", 3),
        ("DEL {a}1 {a}1 {a}5", 1),
        ("UNLINK {a}2 {a}3", 2),
        ("DBSIZE", 1),
    ],
    "keys of several slots are refused": [
        ("MSET a 1 b 2", "-CROSSSLOT Keys in request don't hash to the same slot"),
        ("MGET a b", "-CROSSSLOT Keys in request don't hash to the same slot"),
        ("DEL a b", "-CROSSSLOT Keys in request don't hash to the same slot"),
        ("EXISTS a b", "-CROSSSLOT Keys in request don't hash to the same slot"),
        ("DBSIZE", 0),
    ],
    "the number of arguments matters": [
        ("GET", "-ERR wrong number of arguments for 'get' command"),
        ("GET a b", "-ERR wrong number of arguments for 'get' command"),
        ("SET a", "-ERR wrong number of arguments for 'set' command"),
        ("MSET a 1 a", "-ERR wrong number of arguments for 'mset' command"),
        ("BH.GETAT a", "-ERR wrong number of arguments for 'bh.getat' command"),
    ],
    "an unknown command is named with its arguments": [
        ("FOO bar baz", "-ERR unknown command 'FOO', with args beginning with: 'bar' 'baz' "),
        ("''", "-ERR unknown command '', with args beginning with: "),
    ],
    "GETDEL and GETEX": [
        ("SET k 1", "OK"),
        ("GETEX k EX 5", b"1"),
        ("TTL k", 5),
        ("GETEX k", b"1"),
        ("TTL k", 5),
        ("GETEX k PERSIST", b"1"),
        ("TTL k", -1),
        ("GETEX k NX", SYNTAX),
        ("GETEX k PXAT 1", b"1"),
        ("EXISTS k", 0),
        ("SET k 2", "OK"),
        ("GETDEL k", b"2"),
        ("GETDEL k", None),
        ("GETEX k", None),
    ],
    "deadlines are set, read, moved and taken away": [
        ("EXPIRE k 5", 0),
        ("TTL k", -2),
        ("SET k 1", "OK"),
        ("TTL k", -1),
        ("PERSIST k", 0),
        ("EXPIRE k 5", 1),
        ("PTTL k", 5000),
        ("PEXPIRE k 1499", 1),
        ("TTL k", 1),
        ("EXPIREAT k 1010", 1),
        ("TTL k", 10),
        ("PEXPIREAT k 1000020", 1),
        ("PTTL k", 20),
        ("PERSIST k", 1),
        ("TTL k", -1),
        ("EXPIRE k -1", 1),
        ("EXISTS k", 0),
    ],
    "deadlines under conditions": [
        ("SET k 1", "OK"),
        ("EXPIRE k 10 XX", 0),
        ("EXPIRE k 10 GT", 0),
        ("EXPIRE k 10 NX", 1),
        ("EXPIRE k 20 NX", 0),
        ("EXPIRE k 5 GT", 0),
        ("EXPIRE k 20 GT", 1),
        ("EXPIRE k 30 LT", 0),
        ("EXPIRE k 7 LT", 1),
        ("TTL k", 7),
        ("EXPIRE k 1 NX XX", "-ERR NX and XX, GT or LT options at the same time are not compatible"),
        ("EXPIRE k 1 GT LT", "-ERR GT and LT options at the same time are not compatible"),
        ("EXPIRE k 1 Foo", "-ERR Unsupported option Foo"),
        ("EXPIRE k x", INTEGER),
        (f"EXPIRE k {LARGEST}", "-ERR invalid expire time in 'expire' command"),
    ],
    "TYPE and TOUCH": [
        ("TYPE k", "none"),
        ("SET k 1", "OK"),
        ("TYPE k", "string"),
        ("TOUCH k", 1),
    ],
    "KEYS and SCAN find by pattern": [
        ("MSET {a}1 x {a}2 y", "OK"),
        ("KEYS *1", [b"{a}1"]),
        ("KEYS *", [b"{a}1", b"{a}2"]),
        ("SCAN 0 MATCH {a}? COUNT 100", [b"0", [b"{a}1", b"{a}2"]]),
        ("SCAN 0 TYPE string MATCH *2", [b"0", [b"{a}2"]]),
        ("SCAN 0 TYPE list", [b"0", []]),
        ("SCAN x", "-ERR invalid cursor"),
        ("SCAN -1", "-ERR invalid cursor"),
        ("SCAN " + "9" * 5000, "-ERR invalid cursor"),
        ("SCAN 0 COUNT 0", SYNTAX),
        ("SCAN 0 COUNT x", INTEGER),
        ("SCAN 0 MATCH", SYNTAX),
        ("SCAN 0 FOO bar", SYNTAX),
    ],
    "a range is ordered, bounded, and of one revision": [
        ("MSET {a}1 x {a}2 y {a}3 z {a}10 w", "OK"),
        ("BH.RANGE {a} {a}~ 2", [1, [b"{a}1", b"{a}10"], [b"x", b"w"], 1]),
        ("DEL {a}2 {a}3", 2),
        ("SET {a}10 new", "OK"),
        ("BH.RANGE {a}10 {a}3 9", [3, [b"{a}10"], [b"new"], 0]),
        ("BH.RANGE {a}10 {a}3 9 1", [1, [b"{a}10", b"{a}2"], [b"w", b"y"], 0]),
        ("BH.RANGE {a}10 '' 9 2", [2, [b"{a}10"], [b"w"], 0]),
        ("BH.RANGE {a} '' 9 0", [0, [], [], 0]),
        ("BH.RANGE {a} '' 0", "-ERR limit must be positive"),
        ("BH.RANGE {a} '' 1 4", "-TRYAGAIN revision 4: this replica is at 3"),
        ("BH.RANGE {a} '' 1 -1", "-COMPACTED revision -1: the oldest that can be read is 0"),
        ("BH.RANGE {a} '' 1 1 1", SYNTAX),
    ],
    "a value is read as of a revision": [
        ("SET k 1", "OK"),
        ("SET k 2", "OK"),
        ("DEL k", 1),
        ("BH.VERSION k", 0),
        ("SET k 3", "OK"),
        ("BH.VERSION k", 4),
        *((f"BH.GETAT k {revision}", value) for revision, value in enumerate([None, b"1", b"2", None, b"3"])),
    ],
    "nothing that only reads, or changes nothing, makes a revision": [
        ("SET k 1", "OK"),
        ("GET k", b"1"),
        ("SET k 2 NX", None),
        ("DEL none", 0),
        ("INCRBY k x", INTEGER),
        ("PERSIST k", 0),
        ("BH.VERSION k", 1),
        ("SET k 2", "OK"),
        ("BH.VERSION k", 2),
    ],
}


@pytest.mark.parametrize("dialogue", DIALOGUES.values(), ids=DIALOGUES.keys())
def test_replies(dialogue: list[tuple[str, Any]]) -> None:
    machine = KeyValueMachine()
    for text, reply in dialogue:
        assert told(machine, text) == reply, text


def test_reads_can_be_asked_or_go_through_the_log() -> None:
    machine = KeyValueMachine()
    machine.execute(Operation((b"SET", b"k", b"1")), 1.0)
    for read in ((b"GET", b"k"), (b"MGET", b"k"), (b"DBSIZE",), (b"FOO",), (b"GET",), (b"MGET", b"a", b"b")):
        assert machine.is_read(read)
        assert machine.query(read) == machine.execute(Operation(read), 1.0)
    assert not machine.is_read((b"SET", b"k", b"2"))
    assert machine.query((b"SET", b"k", b"2")).failure.startswith("ERR")
    assert machine.query((b"GET", b"k")) == Outcome(b"1")


@pytest.mark.parametrize("spec", COMMANDS.values(), ids=lambda spec: spec.name)
def test_every_command_stands_any_number_of_strange_arguments(spec: Any) -> None:
    machine = KeyValueMachine()
    machine.execute(Operation((b"SET", b"k", b"\xff")), 1.0)
    for argument in (b"", b"k", b"-1", b"\xff\x00", b"EX", b"9" * 30_000, b"-" + b"9" * 18, b"NX"):
        for length in range(8):
            outcome = machine.execute(Operation((spec.name.encode(), *[argument] * length)), 1.0)
            assert isinstance(outcome, Outcome)
            assert outcome.failure or outcome.value is not None or outcome.executed
    restored = KeyValueMachine()
    restored.restore(machine.freeze())
    assert list(restored.freeze()) == list(machine.freeze())


def test_the_table_says_where_keys_are() -> None:
    assert keys_of((b"GET", b"k")) == (b"k",)
    assert keys_of((b"MSET", b"a", b"1", b"b", b"2")) == (b"a", b"b")
    assert keys_of((b"DEL", b"a", b"b", b"c")) == (b"a", b"b", b"c")
    assert keys_of((b"DBSIZE",)) == ()
    assert KeyValueMachine().slot_of((b"SCAN", b"0")) is None


def test_a_value_that_would_not_fit_a_message_is_refused_however_it_comes_to_be() -> None:
    machine = KeyValueMachine()
    half = b"x" * (VALUE_BYTES_MAX // 2)
    assert machine.execute(Operation((b"SET", b"k", half + half)), 1.0) == Outcome("OK")
    for refused in ((b"APPEND", b"k", b"y"), (b"SET", b"l", half + half + b"y"), (b"SET", b"k" * 5000, b"")):
        outcome = machine.execute(Operation(refused), 1.0)
        assert outcome.failure == "ERR string exceeds maximum allowed size (proto-max-bulk-len)"
    assert machine.query((b"STRLEN", b"k")) == Outcome(VALUE_BYTES_MAX)


def test_a_page_of_a_range_fits_a_message() -> None:
    machine = KeyValueMachine()
    for number in range(9):
        machine.execute(Operation((b"SET", b"{a}%d" % number, b"x" * 10_000)), 1.0)
    _, keys, values, more = machine.query((b"BH.RANGE", b"{a}", b"", b"100")).value
    assert (len(keys), len(values), more) == (3, 3, 1)


def test_the_document_names_every_command() -> None:
    document = (Path(__file__).parents[3] / "docs" / "kv-commands.md").read_text()
    words = set(re.findall(r"[A-Z.]+", document))
    assert [spec.name for spec in COMMANDS.values() if spec.name not in words and spec.name != "@SET"] == []
