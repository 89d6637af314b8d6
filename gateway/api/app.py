"""The application: the endpoints of all modules here, behind the guard.

Owns the order in which they are put together. Each module says which status means what.
"""

from __future__ import annotations

from fastapi import FastAPI

from gateway.api.desk import Desk
from gateway.api.guard import add_guard
from gateway.api.health import add_health
from gateway.api.ingest import add_ingest
from gateway.api.job_desk import JobDesk
from gateway.api.jobs import add_jobs
from gateway.api.network import add_network
from gateway.api.pages import add_pages
from gateway.api.problems import Bodies, explain
from gateway.api.reads import add_reads
from gateway.api.running import Running
from gateway.api.state import Feed


def make_app(
    desk: Desk,
    running: Running,
    jobs: JobDesk,
    *,
    token: str = "",
    trusted: frozenset[str] = frozenset(),
) -> FastAPI:
    """The application.

    Args:
        desk: the way to the gateway's node.
        running: the network around it.
        jobs: the way to the jobs' coordinator.
        token: whoever comes from elsewhere than this machine or `trusted` has to show it; empty: nobody from
            elsewhere is let in.
        trusted: further addresses that need none.
    """
    app = FastAPI(
        title="Birdhouse gateway", version="1", docs_url=None, redoc_url=None, openapi_url="/openapi.json"
    )
    feed = Feed(desk, running)
    bodies = Bodies()
    add_guard(app, token, trusted)
    explain(app)
    add_ingest(app, desk, bodies)
    add_reads(app, desk)
    add_network(app, running, feed, bodies)
    add_jobs(app, jobs, bodies)
    add_health(app, desk)
    add_pages(app)
    return app
