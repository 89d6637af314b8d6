"""A gateway's routing as a user writes it: routes, destinations, and where everything else goes."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from gateway.routing.routes import DROP, STORE, Route, Table
from underlay.errors import InputError, nearest


class Lines(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="lines", tag_field="type"):
    """A file of JSON lines; it only grows."""

    file: str


class Images(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="images", tag_field="type"):
    """A folder of payloads by their content's hash, with an index: what is large, apart from readings."""

    folder: str


Destination = Lines | Images


class Routing(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where a gateway's observations go."""

    route: tuple[Route, ...] = ()
    """The first that matches wins, unless it says `continue`."""
    destination: dict[str, Destination] = {}
    """By name, beside `store` and `drop`."""
    unmatched: str = STORE
    """Where that goes which no route takes."""

    @property
    def table(self) -> Table:
        """The routes, made ready."""
        return Table(self.route, self.unmatched)

    def check(self, key: str) -> None:
        """Raises InputError where a route leads nowhere, or never takes anything.

        Args:
            key: where this is in the user's file.
        """
        for name in self.destination:
            if name in (STORE, DROP) or not name.replace("-", "").replace("_", "").isalnum():
                raise InputError(
                    f"{name!r} cannot be a destination's name",
                    key=f"{key}.destination",
                    hint="letters, digits",
                )
        for number, route in enumerate(self.route):
            self._check_name(route.to, f"{key}.route[{number}].to")
        self._check_name(self.unmatched, f"{key}.unmatched")
        for later, earlier in self.table.shadowed():
            raise InputError(
                f"the route to {later.to} never takes anything: the one to {earlier.to} before it takes all",
                key=f"{key}.route",
                hint="the most particular first, or `continue = true`",
            )

    def _check_name(self, name: str, key: str) -> None:
        known: Mapping[str, object] = {STORE: None, DROP: None, **self.destination}
        if name not in known:
            near = nearest(name, known)
            raise InputError(
                f"there is no destination {name!r}",
                key=key,
                hint=f"did you mean {near!r}?" if near else ", ".join(known),
            )
