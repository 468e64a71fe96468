"""A real Chromium, spoken to in its own protocol (CDP) over the WebSocket that aiohttp has.

Selenium needs a driver beside the browser, Playwright a Node; what these tests do (widths, colours, keys, heap,
network) both pass on to this protocol. https://chromedevtools.github.io/devtools-protocol
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import shutil
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from aiohttp import ClientSession, WSMsgType

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from aiohttp import ClientWebSocketResponse

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS: Final = (
    "--headless=new", "--remote-debugging-port=0", "--no-sandbox", "--disable-gpu", "--no-first-run", "--mute-audio",
    "--disable-dev-shm-usage", "--disable-extensions", "--disable-background-networking", "--hide-scrollbars",
    "--force-color-profile=srgb", "about:blank",
)  # fmt: skip
#: The policy of the page is kept where nothing of this is heard.
_TELL_VIOLATIONS: Final = (
    "addEventListener('securitypolicyviolation', e => console.error('policy', e.violatedDirective, e.blockedURI))"
)
_START_S: Final = 30.0
_ANSWER_S: Final = 30.0
_POLL_S: Final = 0.02
#: What a key is besides its name: code, key code, and text.
_KEYS: Final = {
    "Tab": ("Tab", 9, None), "Enter": ("Enter", 13, "\r"), "ArrowDown": ("ArrowDown", 40, None),
    "ArrowUp": ("ArrowUp", 38, None), "ArrowLeft": ("ArrowLeft", 37, None), "ArrowRight": ("ArrowRight", 39, None),
    "End": ("End", 35, None), "Home": ("Home", 36, None), "/": ("Slash", 191, "/"),
    " ": ("Space", 32, " "),
}  # fmt: skip


def find_chromium() -> str | None:
    """The program, None where there is none."""
    return next((path for name in _NAMES if (path := shutil.which(name)) is not None), None)


class Tab:
    """One page. troubles: what it complained of: exceptions, errors on its console, refused by its policy."""

    def __init__(self, socket: ClientWebSocketResponse) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._session: str | None = None
        self.troubles: list[str] = []
        self.requests: list[dict[str, Any]] = []
        self._reader = asyncio.create_task(self._read())

    async def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command and its result."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_str(json.dumps(message))
        async with asyncio.timeout(_ANSWER_S):
            answer = await waiting
        assert "error" not in answer, (method, answer["error"])
        result: dict[str, Any] = answer["result"]
        return result

    async def begin(self) -> None:
        """Of the page that the browser opened by itself: one that is asked for while it starts may never come."""
        pages: list[dict[str, Any]] = []
        while not pages:
            targets = (await self.send("Target.getTargets"))["targetInfos"]
            pages = [one for one in targets if one["type"] == "page"]
        attached = await self.send("Target.attachToTarget", targetId=pages[0]["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.send(f"{domain}.enable")
        await self.send("Page.addScriptToEvaluateOnNewDocument", source=_TELL_VIOLATIONS)

    async def open(self, url: str) -> None:
        """Go there; does not wait."""
        await self.send("Page.navigate", url=url)

    async def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript, awaited where it is a promise."""
        result = await self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, (expression, result["exceptionDetails"])
        return result["result"].get("value")

    async def until(self, expression: str, within_s: float = 10.0) -> Any:
        """Its value, once it is one that counts as true; what is not there yet does not."""
        tried = f"(() => {{ try {{ return {expression} }} catch {{ return false }} }})()"
        try:
            async with asyncio.timeout(within_s):
                while not (found := await self.evaluate(tried)):  # noqa: ASYNC110 - the browser is asked
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            seen = await self.evaluate("document.body.innerText.slice(0, 800)")
            raise AssertionError(
                f"not within {within_s} s: {expression}; {self.troubles}; the page says: {seen}"
            ) from None
        return found

    async def press(self, key: str, *, shift: bool = False) -> None:
        """A key, as a keyboard sends it."""
        code, number, text = _KEYS.get(key, (f"Key{key.upper()}", ord(key.upper()[0]), key))
        common = {"key": key, "code": code, "windowsVirtualKeyCode": number, "modifiers": 8 if shift else 0}
        down = {"type": "rawKeyDown" if text is None else "keyDown", **({} if text is None else {"text": text})}
        await self.send("Input.dispatchKeyEvent", **common, **down)
        await self.send("Input.dispatchKeyEvent", **common, type="keyUp")

    async def type(self, text: str) -> None:
        """Into what has the focus."""
        await self.send("Input.insertText", text=text)

    async def size(self, width: int, height: int) -> None:
        """Of the window."""
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    async def scheme(self, name: str) -> None:
        """As the system's choice of colours: light or dark."""
        features = [{"name": "prefers-color-scheme", "value": name}]
        await self.send("Emulation.setEmulatedMedia", features=features)

    async def screenshot(self, file: Path, *, whole: bool = False) -> None:
        """As a PNG; whole: beyond what fits in the window."""
        found = await self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(found["data"]))  # noqa: ASYNC240 - nobody else waits

    async def heap_bytes(self) -> int:
        """Of JavaScript, after its garbage is collected."""
        for _ in range(2):
            await self.send("HeapProfiler.collectGarbage")
        return int((await self.send("Runtime.getHeapUsage"))["usedSize"])

    async def dom_nodes(self) -> int:
        """How many nodes are kept, in the document or out of it; after `heap_bytes`, so none is garbage."""
        return int((await self.send("Memory.getDOMCounters"))["nodes"])

    async def end(self) -> None:
        """Listen no more."""
        self._reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reader

    async def _read(self) -> None:
        async for message in self._socket:
            if message.type is not WSMsgType.TEXT:
                return
            told = json.loads(message.data)
            if "id" in told:
                waiting = self._waiting.pop(told["id"])
                if not waiting.cancelled():
                    waiting.set_result(told)
                continue
            self._note(told["method"], told["params"])

    def _note(self, method: str, told: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.troubles.append(str(told["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and told["type"] == "error":
            self.troubles.append(str([one.get("value") for one in told["args"]]))
        elif method == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.troubles.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(told["request"])


@asynccontextmanager
async def chromium(folder: Path) -> AsyncIterator[Tab]:
    """A browser with one empty page. folder: for its profile, which is new."""
    program = find_chromium()
    assert program is not None, "no Chromium. On Debian: apt install chromium"
    process = await asyncio.create_subprocess_exec(
        program, *_ARGUMENTS, f"--user-data-dir={folder}", stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL, env={**os.environ, "HOME": str(folder)}, start_new_session=True,
    )  # fmt: skip
    try:
        place = folder / "DevToolsActivePort"
        async with asyncio.timeout(_START_S):
            while not place.exists() or len(place.read_text().split()) < 2:
                assert process.returncode is None, f"{program} ended with {process.returncode}"
                await asyncio.sleep(_POLL_S)
        port, path = place.read_text().split()
        async with (
            ClientSession() as client,
            client.ws_connect(f"ws://127.0.0.1:{port}{path}", max_msg_size=0) as socket,
        ):
            tab = Tab(socket)
            await tab.begin()
            try:
                yield tab
            finally:
                await tab.end()
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), _START_S)
            except TimeoutError:
                process.kill()
                await process.wait()
