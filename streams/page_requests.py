"""GET /page/ of a worker: the files of the page, which are part of the package.

They say nothing of the ledger, so they need no token: what the page shows it asks for at /live, /csv and /range.

GUARANTEE only these files are served, from memory: a path is looked up, never opened. GUARANTEE the page runs no script
and takes no style but its own, and is in no frame: what a producer chose as a name cannot become either (CSP).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final, NamedTuple

from aiohttp import web

from streams.put_requests import refuse

PATH: Final = "/page/"
#: Sent with every answer of a worker.
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_FOLDER: Final = Path(__file__).with_name("page")
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
_INDEX: Final = "index.html"


class _File(NamedTuple):
    content: bytes
    content_type: str
    etag: str


class PageRequests:
    """Serves the files."""

    def __init__(self) -> None:
        self._files = {
            file.relative_to(_FOLDER).as_posix(): _read(file) for file in _FOLDER.rglob("*") if file.suffix in _TYPES
        }

    def add_to(self, application: web.Application) -> None:
        """Serve the paths."""
        application.router.add_get(PATH.rstrip("/"), self.redirect)
        application.router.add_get(PATH + "{name:.*}", self.file)

    async def redirect(self, _request: web.Request) -> web.Response:
        """To where the page's own paths are relative to."""
        return web.Response(status=308, headers={"Location": PATH})

    async def file(self, request: web.Request) -> web.Response:
        """One of them; what a browser has already it need not get again."""
        file = self._files.get(request.match_info["name"] or _INDEX)
        if file is None:
            return refuse(404, f"there is no {request.path!r:.80}. The page is {PATH}")
        headers = {"ETag": file.etag, "Cache-Control": "no-cache"}
        if file.etag in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        return web.Response(body=file.content, headers={**headers, "Content-Type": file.content_type})


async def add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """To every answer, of whatever path, before it begins."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)


def _read(file: Path) -> _File:
    content = file.read_bytes()
    return _File(content, _TYPES[file.suffix], f'"{hashlib.sha256(content).hexdigest()[:32]}"')
