"""Commands that a host answers by itself: about the connection, the server and the commands.

Owns their syntax and their replies; data, and what CLUSTER tells, are elsewhere (`router`, `topology`). Each
is a function of a `Host` and a client that returns a value for `resp.encode`, or raises `Refused` with the
words that Redis uses.

Source: redis.io/docs/latest/commands, as of Redis 7.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import translate
from re import compile as compile_pattern
from typing import Any

import msgspec

from kv.operations import Command
from kv.redis.client import Client
from kv.redis.commands import Shape
from kv.redis.resp import Encoded, Verbatim
from kv.redis.topology import node_id

REDIS_VERSION = "7.0.0"
"""Whose commands we answer alike, as far as we have them: clients decide by it what they may ask."""

NAME_BYTES_MAX = 1024


class Refused(Exception):
    """The command is wrong; the text goes to the client as an error."""


class Host(msgspec.Struct):
    """What these commands need to know of the host."""

    device: str
    now_s: float
    started_s: float
    clients: Mapping[int, Client]
    shapes: Mapping[bytes, Shape]
    commands_processed: int
    connections_received: int


Answer = Callable[[Host, Client, Command], Any]


def ping(_host: Host, _client: Client, command: Command) -> Any:
    if len(command) > 2:
        raise Refused(wrong_number(command[0]))
    return command[1] if len(command) == 2 else "PONG"


def echo(_host: Host, _client: Client, command: Command) -> Any:
    return command[1]


def select(_host: Host, _client: Client, command: Command) -> Any:
    if not command[1].isdigit():
        raise Refused("ERR invalid DB index")
    if int(command[1]):
        raise Refused("ERR SELECT is not allowed in cluster mode")
    return "OK"


def auth(_host: Host, _client: Client, command: Command) -> Any:
    if len(command) > 3:
        raise Refused("ERR syntax error")
    raise Refused(
        "ERR AUTH <password> called without any password configured for the default user. "
        "Are you sure your configuration is correct?"
    )


def hello(host: Host, client: Client, command: Command) -> Any:
    version, options = client.version, list(command[2:])
    if len(command) > 1:
        if command[1] not in (b"2", b"3"):
            if not command[1].isdigit():
                raise Refused("ERR Protocol version is not an integer or out of range")
            raise Refused("NOPROTO unsupported protocol version")
        version = int(command[1])
    name = None
    while options:
        option = options.pop(0).upper()
        if option == b"SETNAME" and options:
            name = _checked_name(options.pop(0))
        elif option == b"AUTH" and len(options) > 1:
            auth(host, client, (b"AUTH", *options[:2]))
        else:
            raise Refused(f"ERR Syntax error in HELLO option '{_shown(option)}'")
    client.version = version
    if name is not None:
        client.name = name
    return {
        b"server": b"redis",
        b"version": REDIS_VERSION.encode(),
        b"proto": version,
        b"id": client.number,
        b"mode": b"cluster",
        b"role": b"master",
        b"modules": [],
    }


def reset(_host: Host, client: Client, _command: Command) -> Any:
    client.reset()
    return "RESET"


def quit_(_host: Host, client: Client, _command: Command) -> Any:
    client.ending = True
    return "OK"


def not_redis(_host: Host, client: Client, _command: Command) -> Any:
    """A browser that was lured here must not have its request's body taken for commands."""
    client.ending = True
    return Encoded()


def readonly(_host: Host, client: Client, _command: Command) -> Any:
    client.readonly = True
    return "OK"


def readwrite(_host: Host, client: Client, _command: Command) -> Any:
    client.readonly = False
    return "OK"


def asking(_host: Host, client: Client, _command: Command) -> Any:
    client.asking = True
    return "OK"


# ----------------------------------------------------------------------------------------------------- CLIENT


def client_(host: Host, client: Client, command: Command) -> Any:
    match (command[1].upper(), *command[2:]):
        case (b"ID",):
            return client.number
        case (b"GETNAME",):
            return client.name or None
        case (b"SETNAME", name):
            client.name = _checked_name(name)
            return "OK"
        case (b"SETINFO", attribute, value):
            return _set_info(client, attribute, value)
        case (b"INFO",):
            return Verbatim(_described(host, client) + "\n")
        case (b"LIST",):
            return Verbatim("".join(_described(host, one) + "\n" for one in host.clients.values()))
        case (b"NO-EVICT" | b"NO-TOUCH", b"ON" | b"OFF" | b"on" | b"off"):
            return "OK"
        case (b"HELP",):
            return _help(
                "CLIENT", "GETNAME", "ID", "INFO", "LIST", "SETINFO <option> <value>", "SETNAME <name>"
            )
    raise Refused(unknown_subcommand(command))


def _set_info(client: Client, attribute: bytes, value: bytes) -> Any:
    value = _checked_name(value, "lib-name cannot contain spaces, newlines or special characters.")
    match attribute.lower():
        case b"lib-name":
            client.library = value
        case b"lib-ver":
            client.library_version = value
        case _:
            raise Refused(f"ERR Unrecognized option '{_shown(attribute)}'")
    return "OK"


def _checked_name(
    name: bytes, problem: str = "Client names cannot contain spaces, newlines or special characters."
) -> bytes:
    if len(name) > NAME_BYTES_MAX or any(not 33 <= byte <= 126 for byte in name):
        raise Refused(f"ERR {problem}")
    return name


def _described(host: Host, client: Client) -> str:
    fields = {
        "id": client.number,
        "addr": client.peer,
        "laddr": client.here,
        "name": client.name.decode(),
        "age": int(host.now_s - client.opened_s),
        "flags": "r" if client.readonly else "N",
        "db": 0,
        "resp": client.version,
        "lib-name": client.library.decode(),
        "lib-ver": client.library_version.decode(),
    }
    return " ".join(f"{name}={value}" for name, value in fields.items())


# ----------------------------------------------------------------------------------------- COMMAND and CONFIG


def command_(host: Host, _client: Client, command: Command) -> Any:
    shapes = host.shapes
    match tuple(word.upper() for word in command[1:]):
        case ():
            return [_command_info(name, shape) for name, shape in shapes.items()]
        case (b"COUNT",):
            return len(shapes)
        case (b"INFO",):
            return [_command_info(name, shape) for name, shape in shapes.items()]
        case (b"INFO", *names):
            return [_command_info(name, shapes[name]) if name in shapes else None for name in names]
        case (b"LIST",):
            return [name.lower() for name in shapes]
        case (b"DOCS", *names):
            return {name.lower(): _docs(shapes[name]) for name in names or shapes if name in shapes}
        case (b"GETKEYS", name, *_):
            if name not in shapes:
                raise Refused("ERR Invalid command specified")
            if not shapes[name].accepts(len(command) - 2):
                raise Refused("ERR Invalid number of arguments specified for command")
            return list(shapes[name].keys(command[2:])) or _no_keys()
    raise Refused(unknown_subcommand(command))


def _command_info(name: bytes, shape: Shape) -> list[Any]:
    keys = [shape.first_key, shape.last_key, shape.step]
    tips = [tip.encode() for tip in shape.tips]
    return [name.lower(), shape.arity, list(shape.flags), *keys, [], tips, [], []]


def _no_keys() -> Any:
    raise Refused("ERR The command has no key arguments")


def _docs(shape: Shape) -> dict[bytes, Any]:
    return {b"summary": shape.summary.encode(), b"since": b"1.0.0", b"group": b"generic", b"arguments": []}


CONFIGURATION: Mapping[bytes, bytes] = {
    b"appendfsync": b"always",
    b"appendonly": b"yes",
    b"cluster-enabled": b"yes",
    b"databases": b"1",
    b"maxmemory": b"0",
    b"maxmemory-policy": b"noeviction",
    b"save": b"",
    b"timeout": b"0",
}
"""What programs that know Redis ask for, in its terms: every write is on a majority's disks before it is
acknowledged, nothing is evicted."""


def config(_host: Host, _client: Client, command: Command) -> Any:
    match (command[1].upper(), *command[2:]):
        case (b"GET", pattern, *patterns):
            wanted = [glob(one.lower()) for one in (pattern, *patterns)]
            return {
                name: value
                for name, value in CONFIGURATION.items()
                if any(matches(name) for matches in wanted)
            }
        case (b"SET", *_):
            raise Refused("ERR the configuration is fixed while the host runs")
        case (b"RESETSTAT",):
            return "OK"
    raise Refused(unknown_subcommand(command))


def glob(pattern: bytes) -> Callable[[bytes], bool]:
    """A test for names of the configuration."""
    expression = compile_pattern(translate(pattern.decode("latin-1")))
    return lambda name: expression.match(name.decode("latin-1")) is not None


# ------------------------------------------------------------------------------------------------------- INFO


def information(
    host: Host, groups: Mapping[str, Mapping[str, object]], keys: int, wanted: Command
) -> Verbatim:
    """INFO: what it says of the host, and for each group with a replica here one line."""
    sections: dict[str, Mapping[str, object]] = {
        "Server": {
            "redis_version": REDIS_VERSION,
            "redis_mode": "cluster",
            "server_name": "birdhouse",
            "host": host.device,
            "run_id": node_id(host.device),
            "uptime_in_seconds": int(host.now_s - host.started_s),
        },
        "Clients": {"connected_clients": len(host.clients)},
        "Persistence": {"loading": 0, "aof_enabled": 1},
        "Stats": {
            "total_connections_received": host.connections_received,
            "total_commands_processed": host.commands_processed,
        },
        "Replication": {"role": "master" if any(map(_leads, groups.values())) else "slave"},
        "Groups": {
            name: ",".join(f"{field}={value}" for field, value in fields.items())
            for name, fields in groups.items()
        },
        "Cluster": {"cluster_enabled": 1},
        "Keyspace": {"db0": f"keys={keys},expires=0,avg_ttl=0"} if keys else {},
    }
    names = {word.decode("latin-1").lower() for word in wanted}
    if not names or names & {"all", "default", "everything"}:
        names = {name.lower() for name in sections}
    return Verbatim(
        "\r\n".join(
            f"# {name}\r\n" + "".join(f"{field}:{value}\r\n" for field, value in fields.items())
            for name, fields in sections.items()
            if name.lower() in names
        )
    )


def _leads(group: Mapping[str, object]) -> bool:
    return group["role"] in ("leader", "primary")


# ----------------------------------------------------------------------------------------------------- errors

ANSWERS: Mapping[bytes, Answer] = {
    b"PING": ping,
    b"ECHO": echo,
    b"HELLO": hello,
    b"AUTH": auth,
    b"SELECT": select,
    b"RESET": reset,
    b"QUIT": quit_,
    b"READONLY": readonly,
    b"READWRITE": readwrite,
    b"ASKING": asking,
    b"CLIENT": client_,
    b"COMMAND": command_,
    b"CONFIG": config,
    b"POST": not_redis,
    b"HOST:": not_redis,
}
"""By name. The last two are no commands, but words of HTTP."""


def wrong_number(name: bytes) -> str:
    return f"ERR wrong number of arguments for '{_shown(name).lower()}' command"


def unknown_command(command: Command) -> str:
    beginning = " ".join(f"'{_shown(argument)}'" for argument in command[1:4])
    return f"ERR unknown command '{_shown(command[0])}', with args beginning with: {beginning}"


def unknown_subcommand(command: Command) -> str:
    name, subcommand = _shown(command[0]).upper(), _shown(command[1])
    return f"ERR unknown subcommand or wrong number of arguments for '{subcommand}'. Try {name} HELP."


def _help(name: str, *lines: str) -> list[str]:
    return [f"{name} <subcommand> [<arg> ...]. Subcommands are:", *lines]


def _shown(word: bytes) -> str:
    """As much of what a client sent as an error may repeat."""
    return word[:128].decode("ascii", "backslashreplace").replace("\r", "\\r").replace("\n", "\\n")
