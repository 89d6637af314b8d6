"""A gateway's routing as a user writes it: routes, destinations, and where everything else goes."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from gateway.routing.routes import DEAD_LETTER, DROP, STORE, TABLE, UNMATCHED, Route, Table
from gateway.routing.targets import Destination, check_target, place_of
from underlay.errors import InputError, nearest

RESERVED = (STORE, DROP, TABLE)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}\Z", re.ASCII)


class Routing(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where a gateway's observations go."""

    route: tuple[Route, ...] = ()
    """The first that matches wins, unless it says `continue`."""
    destination: dict[str, Destination] = {}
    """By name, beside `store` and `drop`."""
    unmatched: str = STORE
    """Where that goes which no route takes."""
    dead_letter: str = TABLE
    """Where that goes which cannot be stored: the gateway's own table of the last thousand, one of the
    destinations, or `drop`."""

    @property
    def table(self) -> Table:
        """The routes, made ready."""
        return Table(self.route, self.unmatched, self.dead_letter)

    def check(self, key: str) -> None:
        """Raises InputError where a route leads nowhere, or never takes anything.

        Args:
            key: where this is in the user's file.
        """
        places: dict[str, str] = {}
        for name, destination in self.destination.items():
            if name in RESERVED or not _NAME.match(name):
                raise InputError(
                    f"{name!r} cannot be a destination's name",
                    key=f"{key}.destination",
                    hint=f"letters, digits, - and _, beside {', '.join(RESERVED)}",
                )
            check_target(destination, f"{key}.destination.{name}")
            place = place_of(destination)
            if place is not None and place in places:
                raise InputError(
                    f"{places[place]} writes to {place!r} already",
                    key=f"{key}.destination.{name}",
                    hint="a file or folder of its own",
                )
            places[place or ""] = name
        names: dict[str, None] = {}
        for number, route in enumerate(self.route):
            at = f"{key}.route[{number}]"
            self._check_name(route.to, f"{at}.to")
            _check_terms(route, at)
            taken = (*names, UNMATCHED, DEAD_LETTER)
            if route.name and (route.name in taken or not _NAME.match(route.name)):
                raise InputError(
                    f"{route.name!r} cannot be this route's name",
                    key=f"{at}.name",
                    hint=f"one of its own, of letters, digits, - and _, beside {UNMATCHED} and {DEAD_LETTER}",
                )
            names[route.name] = None
        self._check_name(self.unmatched, f"{key}.unmatched")
        self._check_name(self.dead_letter, f"{key}.dead_letter", (TABLE, DROP))
        for later, earlier in self.table.shadowed():
            raise InputError(
                f"the route to {later.to} never takes anything: the one to {earlier.to} before it takes all",
                key=f"{key}.route",
                hint="the most particular first, or `continue = true`",
            )

    def _check_name(self, name: str, key: str, always: tuple[str, ...] = (STORE, DROP)) -> None:
        known: Mapping[str, object] = {**dict.fromkeys(always), **self.destination}
        if name not in known:
            near = nearest(name, known)
            raise InputError(
                f"there is no destination {name!r}",
                key=key,
                hint=f"did you mean {near!r}?" if near else ", ".join(known),
            )


def _check_terms(route: Route, key: str) -> None:
    """What a route says of rate and room has to mean something."""
    given = {
        "rate_limit_per_s": route.rate_limit_per_s is not None,
        "rate_burst": route.rate_burst is not None,
        "priority": route.priority != 0,
        "overflow": route.overflow != "spool",
        "spool_max_observations": route.spool_max_observations is not None,
    }
    for term, there in given.items():
        if there and route.to == DROP:
            raise InputError(f"nothing waits for {DROP!r}", key=f"{key}.{term}", hint="leave it out")
    if route.rate_burst is not None and route.rate_limit_per_s is None:
        raise InputError(
            "a burst is of a rate", key=f"{key}.rate_burst", hint="give rate_limit_per_s, or leave it out"
        )
    if route.overflow == "drop-oldest" and route.spool_max_observations is None:
        raise InputError(
            "is missing: how many may wait before the oldest gives way",
            key=f"{key}.spool_max_observations",
            hint="for example 1000; an observation that gives way was acknowledged and is lost",
        )
