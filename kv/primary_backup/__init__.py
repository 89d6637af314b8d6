"""Primary/backup: one server executes, another one knows everything before a client does, and a view service
says which is which.

`ViewService(servers)` is a node of its own, "views"; `primary_backup(views)` is what a `kv.server.Server`
takes as its replication. docs/kv-primary-backup.md tells the story and the rules.
"""

from __future__ import annotations

from collections.abc import Callable

from kv.primary_backup.replica import PrimaryBackup
from kv.primary_backup.settings import Settings
from kv.primary_backup.views import ViewService
from kv.replication import Machine, Owner
from underlay.node import Address

__all__ = ["PrimaryBackup", "Settings", "ViewService", "primary_backup"]


def primary_backup(
    views: Address, settings: Settings | None = None
) -> Callable[[Owner, Machine], PrimaryBackup]:
    """The replication of a server: `Server("g1", primary_backup("store1/views"), machine)`.

    Args:
        views: the view service, which names this server among its own.
        settings: alike on all servers and the view service.
    """
    return lambda owner, machine: PrimaryBackup(owner, machine, views, settings)
