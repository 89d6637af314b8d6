"""A new store in a folder: its first `service.json`, or a complaint that another one is there."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterable
from pathlib import Path

from kv.paxos import Settings
from kv.tiers import Kind, Tier, tier
from topologies.kv_service.service import (
    DEFAULT_PORT,
    HOSTS_MAX,
    LOOPBACK,
    Service,
    changing,
    exists,
    host_named,
    is_strange,
    load,
    save,
)
from underlay.errors import InputError

DEFAULT_KIND: Kind = "sharded"
HOSTS: dict[Kind, int] = {"primary-backup": 3, "paxos": 3, "sharded": 5}
REPLICAS: dict[Kind, int] = {"primary-backup": 2, "paxos": 3, "sharded": 3}
"""The view service is best on a host without a server."""
GROUPS = 3


def found(
    folder: Path,
    kind: Kind | None = None,
    hosts: int | None = None,
    groups: int | None = None,
    replicas: int | None = None,
    port: int | None = None,
    settings: Settings | None = None,
) -> None:
    """Have a store in that folder. What is not None must fit the one that is there, or describes the new one.

    Raises InputError where it does not fit, cannot be, or the folder belongs to something else.
    """
    fresh = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if is_strange(folder):
            raise InputError("is neither empty nor a store's", file=folder, hint="--dir names another folder")
        with changing(folder):
            if exists(folder):
                _check(folder, load(folder).tier, kind, hosts, groups, replicas)
            else:
                made = _tier(kind or DEFAULT_KIND, hosts, groups, replicas, settings)
                service = Service(made, port or DEFAULT_PORT)
                check_ports(service, made.hosts)
                save(folder, service)
    except OSError as error:
        raise InputError(f"cannot be used: {error.strerror}", file=folder) from error
    finally:
        if fresh and folder.exists() and not exists(folder):
            shutil.rmtree(folder)


def check_ports(service: Service, hosts: Iterable[str]) -> None:
    """Raises InputError where a Redis port of these hosts is taken."""
    for host in hosts:
        port = service.redis_port(host)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError as error:
                raise InputError(
                    f"port {port} is taken, which is {host}'s", hint="--port names another first one"
                ) from error


# ---------------------------------------------------------------------------------------------------- helpers


def _tier(
    kind: Kind, hosts: int | None, groups: int | None, replicas: int | None, settings: Settings | None
) -> Tier:
    if kind != "sharded" and groups not in (None, 1):
        raise InputError(f"a {kind} store is one group", key="--groups", hint="--kind sharded has several")
    hosts = hosts or HOSTS[kind]
    if hosts > HOSTS_MAX:
        raise InputError(f"{hosts} are too many", key="--hosts", hint=f"at most {HOSTS_MAX}")
    names = [host_named(number) for number in range(1, hosts + 1)]
    return tier(kind, names, groups or GROUPS, replicas or min(hosts, REPLICAS[kind]), settings=settings)


def _check(
    folder: Path, made: Tier, kind: Kind | None, hosts: int | None, groups: int | None, replicas: int | None
) -> None:
    """That what was asked for is what is there."""
    there = {
        "kind": (kind, made.kind, f"--kind {made.kind}"),
        "hosts": (hosts, len(made.hosts), "kv join and kv replace bring hosts"),
        "groups": (groups, len(made.groups), "kv join brings groups"),
        "replicas": (replicas, len(next(iter(made.groups.values()))), "it stays as it was made"),
    }
    for name, (wanted, present, hint) in there.items():
        if wanted is not None and wanted != present:
            what = f"{name} is {present}, and not {wanted}"
            raise InputError(f"the store here was made otherwise: {what}", file=folder, hint=hint)
