"""Who may speak to a gateway by HTTP: whoever is near, or shows the token; and no foreign page in a browser.

A browser near the gateway is near too, whatever page it shows. So what has come from another page (its
`Origin` is not the address that is asked) is refused, and so is a name that anybody on the internet can let
point here (DNS rebinding), unless the token is shown, which no foreign page knows.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response

from gateway.api.problems import json_response

Handler = Callable[[Request], Awaitable[Response]]

_PAGES = "/dashboard"
"""Shown to everybody: the page asks for the token itself."""


def add_guard(app: FastAPI, token: str, trusted: frozenset[str]) -> None:
    """Stand before all endpoints; the arguments are `make_app`'s."""

    @app.middleware("http")
    async def guard(request: Request, go_on: Handler) -> Response:
        if not _shows(request, token) and not _is_page(request.url.path):
            if not _is_near(request, trusted):
                return json_response({"problem": "a token is needed"}, 401, {"WWW-Authenticate": "Bearer"})
            if _is_foreign(request):
                hint = "ask by IP address or as localhost, and from no other page; or show a token"
                return json_response({"problem": f"this came from somebody else's page: {hint}"}, 403)
        return await go_on(request)


def is_own(host: str) -> bool:
    """Whether a `Host` header names what nobody from outside can let point here: an address, a name without
    a dot, or one under a domain that the internet does not have (RFC 6761).

    >>> [is_own(host) for host in ("127.0.0.1:8080", "[::1]", "localhost:80", "sink.birdhouse.test", "")]
    [True, True, True, True, True]
    >>> [is_own(host) for host in ("evil.example", "127.0.0.1.evil.example:8080", "[::1")]
    [False, False, False]
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if "." not in name and ":" not in name:
        return True
    if name.endswith((".localhost", ".test")):
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _shows(request: Request, token: str) -> bool:
    scheme, _, shown = request.headers.get("authorization", "").partition(" ")
    return bool(token) and scheme.lower() == "bearer" and hmac.compare_digest(shown.encode(), token.encode())


def _is_page(path: str) -> bool:
    return path == _PAGES or path.startswith(f"{_PAGES}/")


def _is_near(request: Request, trusted: frozenset[str]) -> bool:
    host = request.client.host if request.client else ""
    try:
        return host in trusted or ip_address(host).is_loopback
    except ValueError:
        return False


def _is_foreign(request: Request) -> bool:
    host, origin = request.headers.get("host", ""), request.headers.get("origin")
    try:
        return not is_own(host) or (origin is not None and urlsplit(origin).netloc != host)
    except ValueError:
        return True
