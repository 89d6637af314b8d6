"""Succession: which view follows, as a table."""

from __future__ import annotations

import pytest

from kv.primary_backup.messages import Member, View
from kv.primary_backup.succession import Standing, successor

A1, A2 = Member("a/g1", disk=1, start=1), Member("a/g1", disk=1, start=2)
B1, B2 = Member("b/g1", disk=2, start=1), Member("b/g1", disk=2, start=2)
B_NEW = Member("b/g1", disk=9, start=1)
C1 = Member("c/g1", disk=3, start=1)
NEW, WORKING, SYNCED = (False, False), (True, False), (True, True)
NOBODY = (None, None)


@pytest.mark.parametrize(
    ("view", "come", "alive", "silent", "expected"),
    [
        pytest.param((A1, None), WORKING, [A1], False, NOBODY, id="nobody is idle"),
        pytest.param((A1, None), WORKING, [A1, B1], False, (A1, B1), id="an idle server becomes backup"),
        pytest.param((A1, None), NEW, [A1, B1], False, NOBODY, id="a view waits to be acknowledged"),
        pytest.param((A1, B1), SYNCED, [A1, B1, C1], False, NOBODY, id="all is well"),
        pytest.param((A1, B1), SYNCED, [B1, C1], False, (B1, C1), id="the backup takes over"),
        pytest.param((A1, B1), SYNCED, [A2, B1], False, (B1, A2), id="a restarted primary counts as dead"),
        pytest.param((A1, B1), SYNCED, [A1, B2], False, (A1, B2), id="a restarted backup counts as dead"),
        pytest.param((A1, B1), SYNCED, [A1], False, (A1, None), id="a dead backup is left out"),
        pytest.param((A1, B1), NEW, [B1, C1], False, NOBODY, id="a dead primary's view waits for it"),
        pytest.param((A1, B1), WORKING, [B1, C1], False, NOBODY, id="a backup without the state waits"),
        pytest.param((A1, None), WORKING, [B1, C1], False, NOBODY, id="an idle server is never primary"),
        pytest.param((A1, B1), NEW, [A2, B1], False, (A2, B1), id="the primary's disk comes back"),
        pytest.param((A1, B1), WORKING, [A2, B1], False, (A2, B1), id="it comes back before the sync"),
        pytest.param((A1, B1), SYNCED, [B2, C1], False, (B2, C1), id="both die, the backup's disk is back"),
        pytest.param((A1, B1), SYNCED, [A2, C1], False, (A2, C1), id="both die, the primary's disk is back"),
        pytest.param((A1, B1), WORKING, [B2, C1], False, NOBODY, id="a disk without the state is not enough"),
        pytest.param((A1, B1), SYNCED, [B_NEW, C1], False, NOBODY, id="nor is another disk on that host"),
        pytest.param((A1, B1), SYNCED, [A1, B1, C1], True, (A1, C1), id="a silent backup is replaced"),
        pytest.param((A1, B1), SYNCED, [A1, B1], True, (A1, None), id="or left out"),
        pytest.param((A1, B1), NEW, [A1, B1, C1], True, NOBODY, id="but not before the view is acknowledged"),
    ],
)
def test_the_next_view(
    view: tuple[Member | None, Member | None],
    come: tuple[bool, bool],
    alive: list[Member],
    silent: bool,
    expected: tuple[Member | None, Member | None],
) -> None:
    """A view's number grows by 1, and its members are the expected ones."""
    found = successor(Standing(View(7, *view), *come), alive, silent=silent)
    assert found == (None if expected == NOBODY else View(8, *expected))
