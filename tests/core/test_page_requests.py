"""The page's files: all of them and nothing else, and nothing in them that a browser would fetch elsewhere or run."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from aiohttp import ClientSession

from lifecycle.fetch import fetch
from lifecycle.reader import Reader
from schemas.errors import BadInputError, UnreachableError
from streams.address import announce, find_workers
from streams.api import Api
from streams.live_boards import LiveBoards
from streams.page_requests import HEADERS
from streams.settings import Settings
from streams.worker_http import ask

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from streams.app import Worker

FOLDER = Path(__file__).parents[2] / "streams" / "page"
OURS = sorted(file for file in FOLDER.glob("*") if file.suffix in (".html", ".js", ".css"))
TOKEN = "correct-horse-battery"  # noqa: S105 - of a test


class _Worker:
    """As much of one as the API looks at before it is asked for anything."""

    def __init__(self) -> None:
        self.boards, self.bootstrap = LiveBoards(), "nowhere:1"
        self.hosts: dict[int, object] = {}
        self.lag: dict[int, int] = {}
        self.worker_id, self.unreachable, self.keeper = "host-1", None, None

    def halts(self) -> dict[int, object]:
        """None."""
        return {}

    def is_member(self) -> bool:
        """Of its group."""
        return True


def _served(settings: Settings, scenario: Callable[[ClientSession], Awaitable[None]]) -> None:
    async def run() -> None:
        served = Api(cast("Worker", _Worker()), 0, None, settings)
        await served.start()
        try:
            async with ClientSession(served.address) as client:
                await scenario(client)
        finally:
            await served.stop()

    asyncio.run(run())


def test_every_file_is_served_with_its_type_and_rules(tmp_path: Path) -> None:
    """And a browser is led to the first of them."""

    async def scenario(client: ClientSession) -> None:
        async with client.get("/", headers={"Accept": "text/html,*/*"}) as answer:
            assert answer.url.path == "/page/"
            assert "driftledger" in await answer.text()
        async with client.get("/") as answer:
            assert "/live/fleet\n" in await answer.text()
        for file in FOLDER.rglob("*"):
            if file.is_file():
                async with client.get(f"/page/{file.relative_to(FOLDER).as_posix()}") as answer:
                    assert answer.status == 200, file
                    assert await answer.read() == file.read_bytes()
                    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
                    etag = answer.headers["ETag"]
                async with client.get(str(answer.url), headers={"If-None-Match": etag}) as again:
                    assert again.status == 304

    _served(Settings(data_dir=tmp_path), scenario)


@pytest.mark.parametrize("path", ["/page/nothing.js", "/page/../api.py", "/page/%2e%2e/api.py", "/page//etc/passwd"])
def test_nothing_else_is_served(tmp_path: Path, path: str) -> None:
    """Paths are looked up, not opened."""

    async def scenario(client: ClientSession) -> None:
        async with client.get(path) as answer:
            assert answer.status == 404

    _served(Settings(data_dir=tmp_path), scenario)


def test_every_path_asks_for_the_token_but_the_page_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page then asks its user."""
    monkeypatch.setenv("DRIFTLEDGER_HTTP_TOKEN", TOKEN)
    asked = {"Authorization": f"Bearer {TOKEN}"}

    async def scenario(client: ClientSession) -> None:
        async with client.get("/page/app.js") as answer:
            assert answer.status == 200
        for path in ("/health", "/metrics", "/range", "/hot", "/drift/log", "/live/status", "/csv/status", "/nowhere"):
            async with client.get(path) as answer:
                assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
                assert TOKEN not in await answer.text()
        async with client.post("/put") as answer:
            assert answer.status == 401
        for path in ("/health", "/metrics", "/csv/status"):
            async with client.get(path, headers=asked) as answer:
                assert answer.status == 200, path

    _served(Settings(data_dir=tmp_path), scenario)


def test_commands_name_the_token_of_their_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has none does not find the worker, and is told why where he names it; its file stays for others."""
    without = Settings(data_dir=tmp_path)
    monkeypatch.setenv("DRIFTLEDGER_HTTP_TOKEN", TOKEN)
    settings = Settings(data_dir=tmp_path)

    async def scenario(client: ClientSession) -> None:
        address = str(client._base_url).rstrip("/")
        announce(settings, "host-1", address)
        assert await asyncio.to_thread(find_workers, without) == []
        assert [found.address for found in await asyncio.to_thread(find_workers, settings)] == [address]
        told = await asyncio.to_thread(ask, address, "/health", 5.0, TOKEN)
        assert told is not None
        assert told["worker"] == "host-1"
        assert (await asyncio.to_thread(fetch, address, "/hot", token=TOKEN))[0] == 200
        with pytest.raises(BadInputError, match="this worker asks for its http_token"):
            await asyncio.to_thread(Reader(address).temporal_get, "pump")
        with pytest.raises(UnreachableError, match="this worker has no lane"):
            await asyncio.to_thread(Reader(address, token=TOKEN, wait_s=0).temporal_get, "pump")

    _served(settings, scenario)


@pytest.mark.parametrize("file", OURS, ids=lambda file: file.name)
def test_nothing_in_the_page_is_inline_or_elsewhere(file: Path) -> None:
    """What the policy would refuse does not stand there; nor is text ever parsed as markup."""
    text = file.read_text(encoding="utf-8")
    assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", text)
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text)
    if file.suffix == ".html":
        assert not re.findall(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", text)
    assert all(name.startswith("./") for name in re.findall(r"""from ["']([^"']+)["']""", text))


def test_every_colour_is_defined_for_light_and_for_dark() -> None:
    """By the system's choice and by the switch, which say the same."""
    text = (FOLDER / "page.css").read_text(encoding="utf-8")
    light, by_system, by_switch = (dict(re.findall(r"(--[\w-]+): ([^;]+);", block)) for block in re.findall(
        r":root[^{]*\{([^}]*)\}", text
    ))  # fmt: skip
    assert set(light) == set(by_system)
    assert by_system == by_switch
    assert set(re.findall(r"var\((--[\w-]+)\)", text)) <= set(light)
