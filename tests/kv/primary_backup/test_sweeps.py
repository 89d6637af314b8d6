"""The service under random faults: every server, the view service, the links, and the messages themselves.

The same with a rule forgotten on purpose must be caught, or the sweep would show nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

import pytest

from kv.checking.history import Call
from kv.checking.linearizability import find_violation
from kv.client import Patience, Static
from kv.primary_backup import Settings, succession, views
from kv.primary_backup.lease import Lease
from kv.primary_backup.messages import PEER_MESSAGES, VIEW_MESSAGES
from kv.primary_backup.primary import Primary
from tests.kv.cluster import CALM_S, DRIFT_RATIO, END_S, HOT_KEYS, Shopper, misfortune, mixed, reads
from tests.kv.primary_backup.service import Service
from underlay.clock import DeviceClock
from underlay.faults import Heal
from underlay.node import Node
from underlay.simulation import Rule

CLIENTS = [f"c{number}" for number in range(1, 6)]
SEEDS = 40
"""Within which a broken rule must show."""

SMALL = Settings(
    checkpoint_operations=30, message_bytes_max=512, in_flight_max=8, window_bytes_max=2048, drift_ratio=0.01
)
"""So that checkpoints, chunks and full windows are met often."""

Patch = pytest.MonkeyPatch


def ordeal(seed: int) -> Service:
    """A run with troubles until `CALM_S`."""
    rng = Random(seed)
    hosts = ["s1", "s2", "s3", "v"]
    troubles = misfortune(rng, hosts, CLIENTS, disks=0)
    settings = rng.choice([SMALL, Settings(drift_ratio=DRIFT_RATIO)])
    patience = Patience(deadline_s=20.0, try_s=0.2, pause_s_max=0.2)
    ppm = DRIFT_RATIO * 1e6
    between = PEER_MESSAGES + VIEW_MESSAGES
    servers = [f"{host}/g1" for host in hosts[:3]]
    clients: dict[str, dict[str, Callable[[], Node]]] = {
        client: {
            "shopper": partial(
                Shopper, Static(servers), patience, reads if client == CLIENTS[0] else mixed, 0.02
            )
        }
        for client in CLIENTS
    }
    service = Service(
        seed=seed,
        settings=settings,
        clocks={host: DeviceClock(rng.uniform(0, 5), rng.uniform(-ppm, ppm)) for host in hosts},
        tamper=[
            Rule(between, lost_ratio=0.03, duplicated_ratio=0.03, delayed_ratio=0.1, delay_s=0.3, to_s=CALM_S)
        ],
        more=clients,
        faults=[
            *((trouble.from_s, fault) for trouble in troubles for fault in trouble.begin),
            *((trouble.to_s, fault) for trouble in troubles for fault in trouble.end),
            (CALM_S, Heal()),
        ],
        disk_sync_ms=rng.choice([0.5, 5.0]),
    )
    service.world.run_until(END_S)
    return service


def shoppers(service: Service) -> list[Shopper]:
    nodes = [service.world.node(f"{client}/shopper") for client in CLIENTS]
    return [node for node in nodes if isinstance(node, Shopper)]


def history(service: Service) -> list[Call]:
    calls = [call for shopper in shoppers(service) for call in shopper.calls]
    return calls + [shopper.pending for shopper in shoppers(service) if shopper.pending is not None]


@pytest.mark.sweep(25, fresh=5)
def test_what_clients_see_is_linearizable_and_goes_on(seed: int) -> None:
    service = ordeal(seed)
    calls = history(service)
    assert {call.key for call in calls} <= set(HOT_KEYS)
    violation = find_violation(calls)
    assert violation is None, f"seed {seed}: {violation}"
    for shopper in shoppers(service):
        assert shopper.last_reply_s > (CALM_S + END_S) / 2, f"{shopper.pending} waits still"
    (primary,) = service.leading()
    assert service.roles()[0] == primary
    assert service.synced()


# ------------------------------------------------------------------------------------------ broken on purpose


def believes_in_its_lease_for_ever(patch: Patch) -> None:
    """A primary that has been confirmed once answers reads alone."""
    patch.setattr(Lease, "holds", lambda self, now_s: self._until_s is not None)


def answers_alone(patch: Patch) -> None:
    """It answers when its own disk has something, whatever its backup has."""
    choose = Primary.choose

    def hastily(self: Primary) -> None:
        choose(self)
        self.chosen = self._logged

    patch.setattr(Primary, "choose", hastily)


def promotes_whoever_is_there(patch: Patch) -> None:
    """The view service takes a backup for ready when it is not."""

    def credulous(standing: succession.Standing, *args: object, **silent: bool) -> object:
        standing = succession.Standing(standing.view, True, True)
        return succession.successor(standing, *args, **silent)  # type: ignore[arg-type]

    patch.setattr(views, "successor", credulous)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "break_",
    [believes_in_its_lease_for_ever, answers_alone, promotes_whoever_is_there],
    ids=lambda break_: break_.__name__,
)
def test_a_rule_that_is_forgotten_is_caught(break_: Callable[[Patch], None], monkeypatch: Patch) -> None:
    break_(monkeypatch)
    if not any(map(partial(_shows, break_), range(SEEDS))):
        pytest.fail(f"{SEEDS} seeds show nothing")


def _shows(break_: Callable[[Patch], None], seed: int) -> bool:
    try:
        return find_violation(history(ordeal(seed))) is not None
    except (AssertionError, KeyError):
        return True  # a server met what cannot be, and stopped
