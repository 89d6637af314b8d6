"""The dashboard's files by HTTP."""

from __future__ import annotations

from hashlib import sha256

from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse

from gateway.api.problems import Problem
from gateway.dashboard import CONTENT_SECURITY_POLICY, page_files


def add_pages(app: FastAPI) -> None:
    """Their endpoints."""

    files = page_files()
    etags = {name: f'"{sha256(file.body).hexdigest()[:32]}"' for name, file in files.items()}

    @app.get("/", include_in_schema=False)
    async def home() -> Response:
        return RedirectResponse("/dashboard/")

    @app.get("/dashboard/{name:path}", include_in_schema=False)
    async def page(request: Request, name: str) -> Response:
        name = name or "index.html"
        file = files.get(name)
        if file is None:
            raise Problem(404, "there is no such page")
        headers = {
            "Content-Security-Policy": CONTENT_SECURITY_POLICY,
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-cache",
            "ETag": etags[name],
        }
        if request.headers.get("if-none-match") == etags[name]:
            return Response(status_code=304, headers=headers)
        return Response(file.body, 200, headers, file.media_type)
