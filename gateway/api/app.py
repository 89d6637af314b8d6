"""The application: the endpoints of all modules here, and who may use them.

Owns the order in which they are put together, and the guard. Each module says which status means what.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from ipaddress import ip_address

from fastapi import FastAPI, Request, Response

from gateway.api.desk import Desk
from gateway.api.health import add_health
from gateway.api.ingest import add_ingest
from gateway.api.network import add_network
from gateway.api.pages import add_pages
from gateway.api.problems import explain, json_response
from gateway.api.reads import add_reads
from gateway.api.running import Running
from gateway.api.state import Feed

Handler = Callable[[Request], Awaitable[Response]]


def make_app(
    desk: Desk, running: Running, *, token: str = "", trusted: frozenset[str] = frozenset()
) -> FastAPI:
    """The application.

    Args:
        desk: the way to the gateway's node.
        running: the network around it.
        token: whoever comes from elsewhere than this machine or `trusted` has to show it; empty: nobody from
            elsewhere is let in.
        trusted: further addresses that need none.
    """
    app = FastAPI(
        title="Birdhouse gateway", version="1", docs_url=None, redoc_url=None, openapi_url="/openapi.json"
    )
    feed = Feed(desk, running)
    _guard(app, token, trusted)
    explain(app)
    add_ingest(app, desk)
    add_reads(app, desk)
    add_network(app, running, feed)
    add_health(app, desk)
    add_pages(app)
    return app


def _guard(app: FastAPI, token: str, trusted: frozenset[str]) -> None:
    @app.middleware("http")
    async def guard(request: Request, go_on: Handler) -> Response:
        if not _is_near(request, trusted) and not request.url.path.startswith("/dashboard"):
            shown = request.headers.get("authorization", "").removeprefix("Bearer ")
            if not token or not hmac.compare_digest(shown.encode(), token.encode()):
                return json_response({"problem": "a token is needed"}, 401, {"WWW-Authenticate": "Bearer"})
        return await go_on(request)


def _is_near(request: Request, trusted: frozenset[str]) -> bool:
    host = request.client.host if request.client else ""
    try:
        return host in trusted or ip_address(host).is_loopback
    except ValueError:
        return False
