"""What a host answers by itself, as Redis words it."""

from __future__ import annotations

import pytest

from tests.kv.redis.desk import Desk

HERE = {"g1": ["s1", "s2", "s3"]}


def replies_to(*lines: str) -> bytes:
    """What one client hears when it says these lines, one after the other."""
    desk = Desk(HERE)
    desk.open(1)
    desk.ask([tuple(line.encode().split()) for line in lines])
    ((_, replies),) = desk.replies()
    return replies


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        ("PING", b"+PONG\r\n"),
        ("ping hello", b"$5\r\nhello\r\n"),
        ("PING a b", b"-ERR wrong number of arguments for 'ping' command\r\n"),
        ("ECHO x", b"$1\r\nx\r\n"),
        ("SELECT 0", b"+OK\r\n"),
        ("SELECT 1", b"-ERR SELECT is not allowed in cluster mode\r\n"),
        ("SELECT x", b"-ERR invalid DB index\r\n"),
        ("HELLO 4", b"-NOPROTO unsupported protocol version\r\n"),
        ("HELLO x", b"-ERR Protocol version is not an integer or out of range\r\n"),
        ("HELLO 3 WHAT", b"-ERR Syntax error in HELLO option 'WHAT'\r\n"),
        ("CLIENT GETNAME", b"$-1\r\n"),
        ("CLIENT ID", b":1\r\n"),
        ("CLIENT SETINFO lib-shoe x", b"-ERR Unrecognized option 'lib-shoe'\r\n"),
        ("CLIENT NO-EVICT on", b"+OK\r\n"),
        ("CONFIG GET save maxmemory", b"*4\r\n$9\r\nmaxmemory\r\n$1\r\n0\r\n$4\r\nsave\r\n$0\r\n\r\n"),
        ("CONFIG GET appendo*", b"*2\r\n$10\r\nappendonly\r\n$3\r\nyes\r\n"),
        ("CONFIG SET save x", b"-ERR the configuration is fixed while the host runs\r\n"),
        ("COMMAND GETKEYS MSET a 1 b 2", b"*2\r\n$1\r\na\r\n$1\r\nb\r\n"),
        ("COMMAND GETKEYS PING", b"-ERR The command has no key arguments\r\n"),
        ("COMMAND GETKEYS NOSUCH", b"-ERR Invalid command specified\r\n"),
        ("COMMAND INFO nosuch", b"*1\r\n$-1\r\n"),
        ("CLUSTER KEYSLOT 123456789", b":12739\r\n"),
        ("CLUSTER COUNTKEYSINSLOT 16384", b"-ERR Invalid slot\r\n"),
        (
            "CLUSTER MEET x 1",
            b"-ERR unknown subcommand or wrong number of arguments for 'MEET'. Try CLUSTER HELP.\r\n",
        ),
        ("SCAN x", b"-ERR invalid cursor\r\n"),
        ("RESET", b"+RESET\r\n"),
    ],
)
def test_answers(line: str, reply: bytes) -> None:
    assert replies_to(line) == reply


def test_a_connection_is_what_it_said_it_is_until_it_is_reset() -> None:
    said = replies_to(
        "HELLO 3 SETNAME me",
        "CLIENT SETINFO lib-name lib",
        "READONLY",
        "CLIENT INFO",
        "RESET",
        "CLIENT GETNAME",
    )
    assert b"name=me age=0 flags=r db=0 resp=3 lib-name=lib" in said
    assert said.endswith(b"+RESET\r\n$-1\r\n"), "in version 2 again"


@pytest.mark.parametrize("name", ["a b", "a\nb", "\x00"])
def test_names_that_could_break_a_list_are_refused(name: str) -> None:
    desk = Desk(HERE)
    desk.open(1)
    desk.ask([(b"CLIENT", b"SETNAME", name.encode())])
    ((_, reply),) = desk.replies()
    assert reply == b"-ERR Client names cannot contain spaces, newlines or special characters.\r\n"


def test_info_has_the_sections_that_are_asked_for() -> None:
    desk = Desk(HERE, {"g1": "s1/g1"})
    desk.open(1)
    desk.ask([(b"INFO", b"replication", b"groups"), (b"INFO",)])
    ((_, reply),) = desk.replies()
    two, everything = reply.split(b"$")[1:]
    assert two.split(b"\r\n")[1:] == [
        b"# Replication",
        b"role:master",
        b"",
        b"# Groups",
        b"g1:role=leader,leader=s1/g1,ballot=1,chosen=7,applied=6,stored_from=1,revision=5,keys=3",
        b"",
        b"",
    ]
    assert b"db0:keys=3" in everything


def test_every_command_says_its_arity_and_its_keys() -> None:
    said = replies_to("COMMAND", "COMMAND COUNT")
    count = int(said.rpartition(b":")[2])
    assert said.startswith(b"*%d\r\n" % count)
    assert b"$3\r\nset\r\n:-3\r\n*2\r\n+write\r\n+denyoom\r\n:1\r\n:1\r\n:1\r\n" in said
