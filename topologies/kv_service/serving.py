"""`birdhouse kv serve`: a store as processes of this machine, one for each host, without root.

Owns the life of these processes, and the claims by which two servers of a folder keep apart. Beside starting
and ending hosts it follows `service.json`: one that is new there is started, one that is gone is stopped, and
one whose role changed is started anew, one at a time, so that groups keep their majorities. What hosts store
is in their own folders, and survives.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import IO

import msgspec

from kv.paxos import Settings
from kv.slots import SLOTS
from kv.tiers import Kind
from topologies.kv_service.founding import check_ports, found
from topologies.kv_service.reach import reached
from topologies.kv_service.service import Role, Service, changing, load, save, stamp
from topologies.kv_service.status import StoreStatus, look
from underlay.emulation.loopback import Ended, Hosts
from underlay.errors import InputError, RunFailed

Say = Callable[[str], None]

SETTINGS = Settings(election_timeout_s=1.0)
"""A machine that does other things too may stall for half a second."""

READY_S = 15.0
"""So long it may take until all slots are served; then that they are not is said."""
FOLLOW_S = 10.0
"""So long a host that was started anew may take until it follows, before the next one is."""
LOOK_S = 0.25
"""How often `service.json` is looked at."""
PAUSE_S, PAUSE_S_MAX = 1.0, 30.0
"""Before a host is started again; doubled each time..."""
STEADY_S = 60.0
"""...unless it has lived for so long."""


def serve(
    folder: Path,
    *,
    kind: Kind | None = None,
    hosts: int | None = None,
    groups: int | None = None,
    replicas: int | None = None,
    port: int | None = None,
    only: str = "",
    respawn: bool = False,
    settings: Settings = SETTINGS,
    say: Say = print,
) -> None:
    """Make the store of that folder, or find the one that is there, and serve it until interrupted.

    Args:
        kind: of a new store, default sharded; so are `hosts`, `groups` and `replicas`. Of one that is there,
            what it must be.
        port: Redis port of the first host on 127.0.0.1; the others have the next ones. A store that is there
            moves to it.
        only: serve this host alone; other calls with the same folder serve others.
        respawn: start a host again whose process has ended.
        settings: of the Paxos groups of a new store.
        say: is told what is going on.

    Raises InputError where the folder, the hosts or the ports are taken or do not fit, and RunFailed where a
    host cannot start, or all have ended.
    """
    found(folder, kind, hosts, groups, replicas, port, settings)
    with changing(folder):
        service = load(folder)
        moved = msgspec.structs.replace(service, port=port or service.port)
        if only and moved != service:
            raise InputError(f"the store is at port {service.port}", file=folder, hint="leave --port out")
        serving = _Serving(folder, moved, only, respawn, say)
        try:
            serving.claim()
            if moved != service:
                save(folder, moved)
        except BaseException:
            serving.disclaim()
            raise
    try:
        with serving.hosts:
            serving.run()
    finally:
        serving.disclaim()


# ---------------------------------------------------------------------------------------------------- helpers


class _Serving:
    """Hosts of a folder, served from here."""

    def __init__(self, folder: Path, service: Service, only: str, respawn: bool, say: Say) -> None:
        self.hosts = Hosts(service.site(folder))
        self._folder = folder
        self._service = service
        self._only = only
        self._respawn = respawn
        self._say = say
        self._stamp: object = None
        self._claims: dict[str, IO[str]] = {}
        self._roles: dict[str, Role] = {}
        """What each host was told when it was started last; those whose processes have ended included."""
        self._began_s: dict[str, float] = {}
        self._pause_s: dict[str, float] = {}
        self._due_s: dict[str, float] = {}
        """When a host is started again."""

    def claim(self) -> None:
        """Make sure that nobody else serves these hosts, and that their ports are free. Raises InputError."""
        for host in self._mine():
            self._claim(host)
        check_ports(self._service, self._mine())

    def disclaim(self) -> None:
        """Let others serve them."""
        for claim in self._claims.values():
            claim.close()
        self._claims.clear()

    def run(self) -> None:
        """From the start to the end."""
        try:
            self._stamp = stamp(self._folder)
            self._start(*self._mine())
            self._announce()
            while self._mine():
                for ended in self.hosts.ended(LOOK_S):
                    self._on_ended(ended)
                self._start_due()
                self._follow()
        except KeyboardInterrupt:
            self._say("ending")
        self.hosts.stop()

    # ------------------------------------------------------------------------------------------------- hosts

    def _mine(self) -> Sequence[str]:
        present = self._service.tier.hosts
        if not self._only:
            return present
        if self._only not in present and not self._roles:
            raise InputError(f"there is no host {self._only!r}", file=self._folder, hint=", ".join(present))
        return [host for host in present if host == self._only]

    def _start(self, *hosts: str) -> None:
        for host in hosts:
            role = self._service.role(host)
            assert role is not None
            self._claim(host)
            self._roles[host] = role
            self._began_s[host] = monotonic()
            self._due_s.pop(host, None)
        self.hosts.start(*hosts)

    def _stop(self, host: str) -> None:
        self.hosts.stop(host)
        self._claims.pop(host).close()

    def _on_ended(self, ended: Ended) -> None:
        host = ended.device
        self._claims.pop(host).close()
        self._say(f"{host} has ended: {_how(ended.status)}")
        for line in ended.last_lines:
            self._say(f"  {line}")
        if self._respawn:
            steady = monotonic() - self._began_s[host] > STEADY_S
            pause_s = PAUSE_S if steady else min(PAUSE_S_MAX, 2 * self._pause_s.get(host, PAUSE_S / 2))
            self._pause_s[host] = pause_s
            self._due_s[host] = monotonic() + pause_s
        elif self.hosts.running:
            self._say(f"  birdhouse kv serve --dir {self._folder} --host {host} starts it again")
        else:
            raise RunFailed(f"all hosts have ended, {host} as the last one")

    def _start_due(self) -> None:
        for host in [host for host, due_s in self._due_s.items() if due_s <= monotonic()]:
            self._say(f"{host} starts again")
            self._try_to_start(host)

    def _try_to_start(self, host: str) -> bool:
        """A host that does not start is like one that has ended."""
        try:
            self._start(host)
        except (RunFailed, InputError) as error:
            self._say(str(error))
            self._due_s.pop(host, None)
            if host in self._claims:
                self._on_ended(Ended(host, 1, ()))
            return False
        return True

    # ---------------------------------------------------------------------------------------- `service.json`

    def _follow(self) -> None:
        """Make what is wanted now of what was wanted before."""
        written = stamp(self._folder)
        if written == self._stamp:
            return
        self._stamp, self._service = written, load(self._folder)
        self.hosts.site = self._service.site(self._folder)
        for host in [host for host in self._roles if self._service.role(host) is None]:
            if host in self.hosts.running:
                self._stop(host)
            del self._roles[host]
            self._due_s.pop(host, None)
            self._say(f"{host} is not needed any more")
        for host in self._mine():
            if host not in self._roles:
                self._say(f"{host} is new: redis-cli -c -p {self._service.redis_port(host)}")
                self._try_to_start(host)
        for host in self._mine():
            role = self._service.role(host)
            if role is not None and host in self.hosts.running and self._roles[host].outdated(role):
                self._say(f"{host} gets another role, and is started anew")
                self._stop(host)
                if self._try_to_start(host):
                    self._wait(lambda now, host=host: _follows(now, host), FOLLOW_S)  # type: ignore[misc]

    def _announce(self) -> None:
        made, service = self._service.tier, self._service
        groups = f"{len(made.groups)} groups" if made.kind == "sharded" else "one group"
        self._say(f"{made.kind}, {len(made.hosts)} hosts, {groups}, in {self._folder}")
        for host in self._mine():
            pid = self.hosts.pid(host)
            self._say(f"  {host}: redis-cli -c -p {service.redis_port(host)}   process {pid}")
        if self._only:
            return
        ready = self._wait(lambda now: now.slots == SLOTS, READY_S)
        self._say("ready; Ctrl-C ends it" if ready else "some slots are not served yet: birdhouse kv status")

    def _wait(self, done: Callable[[StoreStatus], bool], within_s: float) -> bool:
        """Until the replicas say so, at most so long; whether they did."""

        async def watch() -> bool:
            until_s = monotonic() + within_s
            async with reached(self._folder) as client:
                while monotonic() < until_s:
                    if done(await look(client)):
                        return True
                    await asyncio.sleep(LOOK_S)
            return False

        return asyncio.run(watch())

    def _claim(self, host: str) -> None:
        """As long as the file is open, nobody else can."""
        if host in self._claims:
            return
        folder = self._folder / host
        folder.mkdir(exist_ok=True)
        claim = (folder / "claim").open("a+")
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            claim.seek(0)
            by = claim.read().strip()
            claim.close()
            raise InputError(f"{host} is served already, by process {by}", file=self._folder) from error
        claim.truncate(0)
        claim.write(f"{os.getpid()}\n")
        claim.flush()
        self._claims[host] = claim


def _follows(now: StoreStatus, host: str) -> bool:
    """Whether all its replicas know a leader and have what it has, or nearly."""
    own = [replica for replica in now.replicas if replica.host == host]
    return all(replica.role not in ("silent", "joining") and replica.lag is not None for replica in own)


def _how(status: int) -> str:
    return f"exit status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"
