"""The dashboard: the files of a page that shows a running system and lets a person break it.

Owns the page, not how it is served: the HTTP door does that, and the page asks the door's API for what it
shows. Plain ES modules, no build step, nothing from another host: it works under `CONTENT_SECURITY_POLICY`.
docs/dashboard.md says what can be seen and done there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

CONTENT_SECURITY_POLICY = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
"""The header to send with the page."""

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}


class PageFile(msgspec.Struct, frozen=True):
    """One file of the page."""

    media_type: str
    body: bytes


def page_files() -> Mapping[str, PageFile]:
    """Every file of the page by its name; these names and no others are to be served, all in one folder, and
    `index.html` as the folder's own address too.

    >>> sorted(page_files())[:2]
    ['api.js', 'app.js']
    """
    folder = Path(__file__).parent
    found = sorted(path for path in folder.iterdir() if path.suffix in _TYPES)
    return {path.name: PageFile(_TYPES[path.suffix], path.read_bytes()) for path in found}
