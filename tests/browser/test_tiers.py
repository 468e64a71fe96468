"""The tiers in a real Chromium: with ten thousand files, by keyboard, at any width, and of a real ledger."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lifecycle.job_record import Did, Progress, State
from lifecycle.jobs import Jobs
from lifecycle.lifecycle_page import Lifecycle
from lifecycle.steps import Job
from schemas.clock import SkewedTime, Step, SystemTime, using
from streams.address import find_workers
from tests.broker.harness import Ledger, Load, wait_for
from tests.browser.chromium import Tab, chromium
from tests.browser.serving import PARTITIONS, Served
from tests.browser.test_page import LIVE, SIDEWAYS, address, browse, seconds, texts
from tests.core.lifecycle_histories import files_of, hot_of, known_of, run_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lifecycle.job_record import Heard

pytestmark = pytest.mark.browser

DAY_S = 86_400
EVENTS = 20_000
DRAWN = "Number(document.querySelector('canvas.picture').dataset.spots) > 0"
#: When the picture was drawn first, in ms from the beginning of the page.
TELL_DRAWN = """new MutationObserver(() => {
  if (!window.drawnAt && document.querySelector('canvas.picture[data-spots]')) window.drawnAt = performance.now();
}).observe(document, { subtree: true, childList: true, attributes: true })"""
CUT = "[...document.querySelectorAll('.scroll')].reduce((most, e) => Math.max(most, e.scrollWidth - e.clientWidth), 0)"
FITS = "(c => Math.abs(c.width - c.parentElement.clientWidth) <= 1)(document.querySelector('canvas'))"
READOUT = "document.querySelector('figure .readout').textContent"
_system = SystemTime()


def some_runs() -> list[Heard]:
    """One in each state, whose texts are long."""
    running = run_of(0, State.RUNNING, "compact", progress=Progress(3_000_000, 4_000_000, "rows"))
    failed = run_of(2, State.FAILED, "verify", error="DamagedError: " + "historical/daily/2026-11-23/data/" * 8)
    failed = failed._replace(job=failed.job._replace(remedy="Run `driftledger lifecycle run restore`"))
    begun = run_of(4, State.PLANNED, "prune", progress=None, did=Did())
    return [run_of(9), begun, failed, run_of(1, State.CANCELLED, "demote", error="another ran"), running]


def known(runs: Sequence[Heard], files: int = 240, partitions: int = PARTITIONS) -> Lifecycle:
    """A ledger of so many files."""
    return known_of(files_of(files, partitions), hot_of(partitions), runs, partitions=partitions)


@pytest.mark.alone
def test_ten_thousand_files_are_drawn_within_a_second(tmp_path: Path) -> None:
    """And drawn anew, with what changed, at the next look, which is a second later at most."""

    async def scenario(tab: Tab, server: Served) -> None:
        server.lifecycle.known = known(some_runs(), 10_000)
        await tab.send("Page.addScriptToEvaluateOnNewDocument", source=TELL_DRAWN)
        await tab.open(address(server, "#/lifecycle"))
        await tab.until(f"{LIVE} && {DRAWN}")
        assert await tab.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime") < 1_000
        assert await tab.evaluate("window.drawnAt") < 1_000
        assert "10,000 files" in await tab.evaluate("document.querySelector('.sub').textContent")
        assert await tab.evaluate("document.querySelectorAll('*').length") < 1_000
        for count in (9_960, 10_040):
            server.lifecycle.known = known(some_runs(), count)
            begun_ns = _system.monotonic_ns()
            await tab.until(f"document.querySelector('.sub').textContent.includes('{count:,} files')")
            assert seconds(begun_ns) < 2.0

    browse(tmp_path, scenario)


def test_it_fits_any_width_in_both_colours(tmp_path: Path) -> None:
    """No table is cut, nothing is wider than the window; pictures for who wants to look."""
    pictures = Path(os.environ.get("DRIFTLEDGER_TEST_SCREENSHOTS", str(tmp_path / "pictures")))

    async def scenario(tab: Tab, server: Served) -> None:
        server.lifecycle.known = known(some_runs())
        await tab.open(address(server, "#/lifecycle"))
        await tab.until(f"{LIVE} && {DRAWN}")
        await tab.evaluate("[...document.querySelectorAll('.linky')][2].click()")
        await tab.until("!document.querySelector('.detail').hidden")
        for width in (360, 480, 570, 700, 890, 910, 1_024, 1_170, 1_190, 1_280, 1_366, 1_490, 1_510, 1_920):
            await tab.size(width, 800)
            assert await tab.evaluate(SIDEWAYS) <= 0, width
            assert await tab.evaluate(CUT) <= 0, width
            await tab.until(f"{FITS} && {DRAWN}")
        for width, height in ((360, 740), (1_280, 900)):
            for scheme in ("light", "dark"):
                await tab.size(width, height)
                await tab.scheme(scheme)
                await asyncio.sleep(0.3)
                await tab.screenshot(pictures / f"tiers-{width}-{scheme}.png", whole=True)

    browse(tmp_path, scenario)


def test_the_colours_of_the_picture_are_those_of_the_page(tmp_path: Path) -> None:
    """Blocks are drawn anew when the colours change."""
    dots = """(() => { const c = document.querySelector('canvas.picture'); const all = new Set();
      const data = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
      for (let i = 0; i < data.length; i += 4) {
        if (data[i + 3] === 255) all.add([data[i], data[i + 1], data[i + 2]].join());
      }
      return [...all]; })()"""
    hourly = {"Light": "47,120,208", "Dark": "111,168,245"}

    async def scenario(tab: Tab, server: Served) -> None:
        await tab.scheme("light")
        await tab.open(address(server, "#/lifecycle"))
        await tab.until(f"{LIVE} && {DRAWN}")
        for name in ("Light", "Dark"):
            await tab.evaluate("document.querySelector('#theme').click()")
            assert await tab.evaluate("document.querySelector('#theme').textContent") == name
            await tab.until(f"{dots}.includes('{hourly[name]}')")
        assert hourly["Light"] not in await tab.evaluate(dots)

    browse(tmp_path, scenario)


def test_the_picture_is_read_by_keys_and_by_pointer(tmp_path: Path) -> None:
    """Each block says what it is in the line below; a run opens with Enter, and the arrows go through runs."""

    async def scenario(tab: Tab, server: Served) -> None:
        server.lifecycle.known = known(some_runs())
        await tab.open(address(server, "#/lifecycle"))
        await tab.until(f"{LIVE} && {DRAWN}")
        for _ in range(30):
            await tab.press("Tab")
            if await tab.evaluate("document.activeElement.matches('canvas.picture')"):
                break
        assert await tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
        hint = await tab.evaluate(READOUT)
        assert hint.startswith("Point at anything")
        await tab.press("End")
        newest = await tab.evaluate(READOUT)
        assert re.fullmatch(r"Hot, partition 0: hourly, .* to 2026-.* UTC, 1,000 rows, 40 kB", newest)
        await tab.press("ArrowLeft")
        assert await tab.evaluate(READOUT) not in (hint, newest)
        for _ in range(PARTITIONS):
            await tab.press("ArrowDown")
        assert (await tab.evaluate(READOUT)).startswith("Historical, partition 0: ")
        for _ in range(12):
            await tab.press("ArrowDown")
        assert re.match(r"demote: \d+ files or hours, .* moves from .* UTC on", await tab.evaluate(READOUT))
        box = "document.querySelector('canvas.picture').getBoundingClientRect()"
        x, y = await tab.evaluate(f"[{box}.right - 20, {box}.top + 40]")
        await tab.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        await tab.until(f"{READOUT}.startsWith('Hot, partition ')")
        await tab.evaluate("document.querySelector('.linky').focus()")
        await tab.press("ArrowDown")
        await tab.press("ArrowDown")
        await tab.press("Enter")
        detail = "document.querySelector('.detail')"
        await tab.until(f"!{detail}.hidden && {detail}.textContent.includes('lifecycle run restore')")
        assert "DamagedError" in await tab.evaluate(f"{detail}.textContent")
        await tab.press("Enter")
        await tab.until(f"{detail}.hidden")
        assert await tab.evaluate("document.activeElement.className") == "linky"

    browse(tmp_path, scenario)


def test_progress_goes_on_and_names_are_text(tmp_path: Path) -> None:
    """A run that goes on moves its bar; what somebody wrote into the topic is shown and not run."""
    hostile = '<img src=x onerror="document.title=1">'

    async def scenario(tab: Tab, server: Served) -> None:
        await tab.open(address(server, "#/lifecycle"))
        for done in (1, 2, 3):
            running = run_of(0, State.RUNNING, hostile, host="<script>", progress=Progress(done, 4, "rows"))
            server.lifecycle.known = known([running])
            await tab.until(f"{LIVE} && document.querySelector('.percent').textContent === '{25 * done} %'")
        assert await tab.evaluate("document.querySelector('.linky').textContent") == hostile
        assert await tab.evaluate("document.querySelectorAll('main img, main script').length") == 0
        server.lifecycle.known = known([run_of(0, State.DONE, hostile, host="<script>")])
        await tab.until("document.querySelector('progress') === null")
        assert await texts(tab, "tbody .c-run .word") == ["done"]

    browse(tmp_path, scenario)


def test_what_is_not_known_is_said(tmp_path: Path) -> None:
    """Before anything was read, when something cannot be read, and of a ledger without jobs or archives."""

    async def scenario(tab: Tab, server: Served) -> None:
        server.lifecycle.known = Lifecycle()
        await tab.open(address(server, "#/lifecycle"))
        note = "document.querySelector('section > .note').textContent"
        await tab.until(f"{LIVE} && {note} === 'Loading …'")
        server.lifecycle.known = Lifecycle(error="Kafka at x did not answer: <b>")
        trouble = "document.querySelector('.trouble')"
        await tab.until(f"{note} === 'Nothing is known yet.' && {trouble}.textContent.includes('did not answer: <b>')")
        server.lifecycle.known = known_of(files_of(0, 1), hot_of(1, 0))
        await tab.until(f"{trouble}.hidden && {DRAWN.replace('> 0', '>= 0')}")
        assert "No job has run yet." in await texts(tab, ".note")
        server.lifecycle.known = known(some_runs())._replace(error="away")
        await tab.until(f"!{trouble}.hidden && {DRAWN}")
        await tab.evaluate("HTMLAnchorElement.prototype.click = function () { window.savedAs = this.download; }")
        await tab.evaluate("document.querySelector('.csv').click()")
        await tab.until("window.savedAs === 'driftledger-lifecycle.csv'")

    browse(tmp_path, scenario)


def test_it_shows_a_real_ledger(kafka: Any, prefix: str, tmp_path: Path) -> None:
    """Of a worker on a real broker: what was sealed and joined is there, and a run that is made meanwhile."""
    ledger = Ledger(kafka.bootstrap, prefix, tmp_path, {"partitions": 2, "lanes": 1}).create()
    load = Load(ledger)
    load.send(EVENTS)
    load.flush()
    with ledger.worker() as worker:
        ledger.wait_level(worker)
        wait_for(lambda: worker.output.count("hot_tier_level") == 2, "both are hot")
        worker.stop()

    def run(job: Job, days: float) -> None:
        with (
            using(SkewedTime(SystemTime(), Step(int(days * DAY_S * 1e9)))),
            Jobs(ledger.settings, ledger.bootstrap) as jobs,
        ):
            jobs.run(job, lambda *_: None)

    run(Job.SEAL, 8)
    run(Job.COMPACT, 8.5)
    with Jobs(ledger.settings, ledger.bootstrap) as jobs:
        files = [file for part in jobs.tree().parts.values() for file in part]

    async def scenario() -> None:
        async with chromium(tmp_path / "profile") as tab:
            await tab.size(1280, 900)
            (found,) = find_workers(ledger.settings)
            await tab.open(f"{found.address}/page/#/lifecycle")
            await tab.until(f"{LIVE} && {DRAWN} && document.querySelectorAll('.linky').length === 2", 60)
            rows = dict(zip(await texts(tab, ".c-tier"), await texts(tab, ".c-segments"), strict=True))
            assert rows["historical archive"] == str(len(files))
            assert int(rows["live hot store"]) + int(rows["recent hot store"]) >= 2
            assert await texts(tab, ".linky") == ["compact", "seal"]
            await asyncio.get_running_loop().run_in_executor(None, run, Job.VERIFY, 9)
            await tab.until("document.querySelectorAll('.linky').length === 3", 30)
            await tab.until("document.querySelector('tbody .c-run .word').textContent === 'done'", 30)
            assert (await texts(tab, ".linky"))[0] == "verify"
            assert tab.troubles == []

    (tmp_path / "profile").mkdir()
    with ledger.worker() as worker:
        worker.wait_live()
        wait_for(lambda: worker.output.count("hot_tier_level") == 2, "both are hot")
        asyncio.run(scenario())
        worker.stop()


def test_the_instants_of_the_picture_are_those_of_the_zone(tmp_path: Path) -> None:
    """Of blocks, runs and tiers."""

    async def scenario(tab: Tab, server: Served) -> None:
        await tab.send("Emulation.setTimezoneOverride", timezoneId="Asia/Kolkata")
        server.lifecycle.known = known([run_of(0)])
        await tab.open(address(server, "#/lifecycle"))
        await tab.until(f"{LIVE} && {DRAWN}")
        began = "document.querySelector('tbody .c-began').textContent"
        utc = await tab.evaluate(began)
        await tab.evaluate("document.querySelector('#zone').click()")
        local = await tab.evaluate(began)
        minutes = [int(text[11:13]) * 60 + int(text[14:16]) for text in (utc, local)]
        assert (minutes[1] - minutes[0]) % 1_440 == 330

    browse(tmp_path, scenario)
