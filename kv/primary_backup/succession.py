"""Succession: which view follows, given who lives. A pure function, and the heart of the view service.

Two things are known of a view beside its members. It is *acknowledged* once its primary works in it. It is
*synced* once its backup has the whole state and the primary does nothing without it. What follows:

| primary | backup | next view |
|---|---|---|
| lives, acknowledged | dead, silent or none | the same primary, with an idle server as backup, or none |
| lives, not acknowledged | any | none: the primary may not know what it is |
| dead | lives, synced | the backup is primary, with an idle server as backup |
| dead | dead, or not synced | whoever comes back with a disk that has everything; until then none |

The disks that have everything are the primary's, and the backup's if the view is synced: before that the
primary answers alone, and afterwards nothing is answered that is not on both.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from kv.primary_backup.messages import Member, View


class Standing(msgspec.Struct, frozen=True, array_like=True):
    """A view, and how far it has come."""

    view: View = View()
    acknowledged: bool = False
    synced: bool = False


def successor(standing: Standing, alive: Sequence[Member], *, silent: bool = False) -> View | None:
    """The view to follow now, or None.

    Args:
        standing: the view that there is; not that before the first.
        alive: servers that are heard of, in the order of preference.
        silent: the primary says that its backup does not answer.
    """
    view = standing.view
    primary, backup = view.primary, view.backup
    if primary in alive:
        if not standing.acknowledged or (backup in alive and not silent):
            return None
        idle = next((member for member in alive if member not in (primary, backup)), None)
        return View(view.number + 1, primary, idle) if idle != backup else None
    heir = backup if standing.synced and backup in alive else _returned(standing, alive)
    if heir is None:
        return None
    idle = next((member for member in alive if member != heir), None)
    return View(view.number + 1, heir, idle)


def _returned(standing: Standing, alive: Sequence[Member]) -> Member | None:
    """Who lives with a disk that has everything."""
    view = standing.view
    for complete in (view.primary, view.backup if standing.synced else None):
        for member in alive:
            if complete is not None and member.outlives(complete):
                return member
    return None
