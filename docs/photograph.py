"""Photographs the page for page.md and the README: `python -m docs.photograph [FOLDER]`, else in place.

Problem: a picture of a page that somebody painted shows what it should be. These are taken by the browser that tests
use, of a worker that `driftledger up --sample` started: a real Kafka, 200 sources, RUN_S of their events. So they are
others each time, but for what is wrong with which clock. Tiers are shown of an invented ledger of years, for that one
has none: `python -m docs.photograph FOLDER tiers` takes these pictures alone, in seconds.

GUARANTEE whatever it started has ended when it ends, and its data is gone. HAZARD it needs Chromium, Pillow (which
matplotlib brings) and two and a half minutes; the first time also those in which kernels are compiled.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from PIL import Image

from docs.draw import FOLDER
from docs.lifecycle_years import years
from schemas.clock import SystemTime
from schemas.errors import DriftledgerError
from schemas.instants import US_PER_MS
from streams.address import find_workers
from streams.settings import ENVIRONMENT_PREFIX, Settings
from tests.browser.chromium import chromium
from tests.browser.serving import fleet_of, served

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.browser.chromium import Tab

WIDTH: Final = 1_280
#: Clocks are set half a minute after the fleet began, and paths cut a little later; then it takes a minute.
RUN_S: Final = 130
#: A page of text with all of them is loaded over a slow line, too.
BYTES_MAX: Final = 100_000
_START_S: Final = 300
_READY_S: Final = 60
_STOP_S: Final = 60
#: The page is plain colours and text: so many tones show no difference.
_COLOURS: Final = 256
#: By name: where, how high, and what is there once it is to be seen. {}: partition of the source that is shown.
PICTURES: Final = {
    "fleet": ("#/fleet", 720, "document.querySelectorAll('tbody tr').length === 100"),
    "source": ("#/source/{}/step%2B3s-1", 980, "document.querySelectorAll('canvas').length === 1"),
    "alerts": ("#/alerts", 720, "document.querySelectorAll('tbody tr').length > 30"),
    "log": ("#/log", 640, "document.querySelectorAll('tbody tr').length === 100"),
    "status": ("#/status", 380, "document.querySelector('.c-rate:not(th)').textContent !== '\\u2013'"),
}
#: Likewise, of the ledger of `lifecycle_years`.
INVENTED: Final = {
    "tiers": ("#/lifecycle", 1_020, "document.querySelector('canvas.picture').dataset.spots > 100"),
    "jobs": (
        "#/lifecycle",
        520,
        "document.querySelector('.runs').scrollIntoView() || document.querySelector('progress')",
    ),
}
_LIVE: Final = "document.querySelector('#link-text').textContent === 'live'"
_PARTITION: Final = (
    "fetch('/live/fleet?search=step%2B3s-1&limit=1').then(async (answer) => {"
    " const reader = answer.body.getReader(); const { value } = await reader.read(); await reader.cancel();"
    ' return /"partition":(\\d+),/.exec(new TextDecoder().decode(value))?.[1]; })'
)
_time: Final = SystemTime()


@contextlib.contextmanager
def sample(folder: Path) -> Iterator[str]:
    """The address of a worker beside the sample fleet, which has run for RUN_S. Raises DriftledgerError without one."""
    settings = Settings(data_dir=folder)
    command = [sys.executable, "-c", "from streams.cli.main import run; run()", "up", "--sample"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(ENVIRONMENT_PREFIX)}
    environment |= {f"{ENVIRONMENT_PREFIX}DATA_DIR": str(folder), f"{ENVIRONMENT_PREFIX}HTTP_PORT": "0"}
    with (folder / "up.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            deadline_ns = _time.monotonic_ns() + _START_S * 1_000_000_000
            while not (found := find_workers(settings)):
                if process.poll() is not None or _time.monotonic_ns() > deadline_ns:
                    raise DriftledgerError(f"no worker began: {(folder / 'up.log').read_text()[-2_000:]}")
                _time.sleep_s(0.5)
            _time.sleep_s(RUN_S)
            yield found[0].address
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(_STOP_S)


async def photograph(address: str, folder: Path, profile: Path, pictures: Mapping[str, tuple[str, int, str]]) -> None:
    """Take all of them."""
    async with chromium(profile) as tab:
        await tab.scheme("light")
        await tab.open(f"{address}/page/")
        await tab.until(_LIVE, _READY_S)
        place = await tab.evaluate(_PARTITION)
        for name, (path, height, ready) in pictures.items():
            await tab.size(WIDTH, height)
            await tab.open("about:blank")
            await tab.open(f"{address}/page/{path.format(place)}")
            await tab.until(f"{_LIVE} && {ready}", _READY_S)
            await _settled(tab)
            file = folder / f"page_{name}.png"
            await tab.screenshot(file)
            file.write_bytes(compact(file.read_bytes()))
        if tab.troubles:
            raise DriftledgerError(f"the page complains: {tab.troubles}")


async def _settled(tab: Tab) -> None:
    """Once the first events have come, and what is drawn by them."""
    await asyncio.sleep(3)
    await tab.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def compact(png: bytes) -> bytes:
    """The same picture of a few colours. Raises DriftledgerError where it is larger than BYTES_MAX all the same."""
    with Image.open(io.BytesIO(png)) as picture:
        few = picture.convert("RGB").quantize(_COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        held = io.BytesIO()
        few.save(held, "PNG", optimize=True)
    if held.tell() > BYTES_MAX:
        raise DriftledgerError(f"a picture has {held.tell():,} bytes, more than {BYTES_MAX:,}. Take less of the page")
    return held.getvalue()


async def photograph_years(folder: Path, data: Path, profile: Path) -> None:
    """Those of tiers."""
    async with served(data) as server:
        fleet_of(server.lane, 20).begin(2)
        server.lifecycle.known = years(_time.now_us() // US_PER_MS)
        await photograph(server.address, folder, profile, INVENTED)


def main(folder: str, *only: str) -> None:
    """Run the fleet and take its pictures, and those of tiers; only: "tiers", these alone."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as kept:
        profiles = [Path(kept) / name for name in ("profile", "profile-of-tiers")]
        for profile in profiles:
            profile.mkdir()
        if not only:
            with sample(Path(kept)) as address:
                asyncio.run(photograph(address, Path(folder), profiles[0], PICTURES))
        asyncio.run(photograph_years(Path(folder), Path(kept) / "served", profiles[1]))


if __name__ == "__main__":
    main(*sys.argv[1:] or [FOLDER])
