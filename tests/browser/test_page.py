"""The page in a real Chromium: what it shows, how soon, by keyboard, at any width, and when the worker goes away.

DRIFTLEDGER_TEST_SCREENSHOTS names a folder for a picture of each view, for somebody to look at.
DRIFTLEDGER_TEST_PAGE_S is how long the page is kept open by the test that is a soak, 600 s unless given.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from lifecycle import drift_rows
from schemas.clock import SystemTime
from schemas.errors import UnreachableError
from streams import live_boards, live_log, live_requests
from streams.alert_shelf import CLOSED_MAX
from streams.boards import make_board
from tests.browser.chromium import Tab, chromium
from tests.browser.serving import HOSTILE, KNOWN, Fleet, Served, fleet_of, sending, served
from tests.core.judge_oracle import START_MS, control
from tests.core.live_lane import Sent
from tests.core.test_alert_shelf import record

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    Scenario = Callable[[Tab, Served], Awaitable[None]]

pytestmark = pytest.mark.browser

VIEWS = {
    "fleet": "#/fleet",
    "alerts": "#/alerts",
    "log": "#/log",
    "status": "#/status",
    "lifecycle": "#/lifecycle",
    "source": "#/source/{}/corrected",
}
ROWS = "document.querySelectorAll('tbody tr').length"
LIVE = "document.querySelector('#link-text').textContent === 'live'"
SIDEWAYS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
CUT = "(e => e.scrollWidth - e.clientWidth)(document.querySelector('.scroll'))"
#: How much more of the heap is in use after a while that is no leak: tables grow to what a page shows.
GROWN_BYTES_MAX = 3_000_000
#: How often an open page is measured while it is kept open, and what may differ between its first and its second half:
#: a row has some nodes more with a cause than without.
LOOKS = 20
OPEN_GROWN_BYTES_MAX = 500_000
OPEN_NODES_MAX = 1.05
_system = SystemTime()


def browse(folder: Path, scenario: Scenario, *, token: str | None = None, troubles: int = 0) -> None:
    """Run a scenario; at its end the page has nothing to complain of but what was expected."""

    async def run() -> None:
        async with served(folder / "served", token) as server, chromium(folder / "profile") as tab:
            await tab.size(1280, 800)
            await scenario(tab, server)
            if not troubles:
                assert tab.troubles == []

    (folder / "profile").mkdir()
    asyncio.run(run())


def address(server: Served, path: str = "") -> str:
    """Of a view."""
    return f"{server._api.address}/page/{path}"


def seconds(ns: int) -> float:
    """Since then."""
    return (_system.monotonic_ns() - ns) / 1e9


def view_of(name: str, fleet: Fleet) -> str:
    """The hash of a view."""
    return VIEWS[name].format(fleet.place("corrected"))


def shown(name: str) -> str:
    """A name as the page writes it: what nobody sees is written out."""
    return re.sub(r"[\x00-\x1f\u202e]", lambda found: f"\\u{ord(found[0]):04x}", name)


async def texts(tab: Tab, selector: str) -> list[str]:
    """Of all elements that it finds."""
    found: list[str] = await tab.evaluate(f"[...document.querySelectorAll({selector!r})].map(e => e.textContent)")
    return found


def test_no_column_is_cut_at_any_width(tmp_path: Path) -> None:
    """Those that are least needed go before one is out of sight; long names, too."""

    async def scenario(tab: Tab, server: Served) -> None:
        fleet = fleet_of(server.lane, 60, hostile=True)
        fleet.begin(30)
        fleet.send(_system.now_us() // 1_000)
        for name in VIEWS:
            await tab.open("about:blank")
            await tab.open(address(server, view_of(name, fleet)))
            await tab.until(f"{LIVE} && {ROWS} > 0")
            for width in (360, 480, 570, 700, 890, 910, 1_024, 1_170, 1_190, 1_280, 1_366, 1_490, 1_510, 1_920):
                await tab.size(width, 800)
                assert await tab.evaluate(SIDEWAYS) <= 0, (name, width)
                assert await tab.evaluate(CUT) <= 0, (name, width)

    browse(tmp_path, scenario)


@pytest.mark.alone
def test_it_paints_and_follows_ten_thousand_sources_within_a_second(tmp_path: Path) -> None:
    """The first paint, and a clock that steps in between all others."""

    async def scenario(tab: Tab, server: Served) -> None:
        fleet = fleet_of(server.lane, 10_000)
        fleet.begin(4, over_s=12)
        await tab.open(address(server, "#/fleet?sort=delta"))
        await tab.until(f"{LIVE} && {ROWS} === 100", 20)
        paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
        assert await tab.evaluate(paint) < 1_000
        assert await tab.evaluate("document.querySelectorAll('tr').length") < 300
        took: list[float] = []
        async with sending(fleet):
            await tab.until("document.querySelector('.where').textContent === '1\u2013100 of 10,000'")
            for name in ("sensor-00017", "sensor-04711", "sensor-09999"):
                first = f"document.querySelector('tbody .c-source').textContent === {name!r}"
                fleet.offsets_ms[name] = 60_000.0 + 1_000 * len(took)
                begun_ns = _system.monotonic_ns()
                fleet.send(_system.now_us() // 1_000, [name])
                await tab.until(first)
                took.append(seconds(begun_ns))
        assert max(took) < 1.0, took

    browse(tmp_path, scenario)


def test_each_view_fits_its_width_in_both_colours(tmp_path: Path) -> None:
    """At 360 and 1,920 pixels nothing is wider than the window; pictures for who wants to look."""
    pictures = Path(os.environ.get("DRIFTLEDGER_TEST_SCREENSHOTS", str(tmp_path / "pictures")))

    async def scenario(tab: Tab, server: Served) -> None:
        fleet = fleet_of(server.lane, 180, hostile=True)
        fleet.begin(60)
        fleet.offsets_ms["corrected"] = 20.0
        for step in range(6):
            fleet.send(_system.now_us() // 1_000 - 12_000 + 2_000 * step)
        halt = {"partition": 3, "code": "INPUT_CUT", "detail": "offsets 17 to 99 are gone", "remedy": "Read the manual"}
        async with sending(fleet):
            for name in VIEWS:
                server.facts = {"healthy": name != "status", "halted": int(name == "status")}
                server.facts["halts"] = [halt] * server.facts["halted"]
                for width, height in ((360, 740), (1_920, 1_080)):
                    for scheme in ("light", "dark"):
                        await tab.size(width, height)
                        await tab.scheme(scheme)
                        await tab.open("about:blank")
                        await tab.open(address(server, view_of(name, fleet)))
                        await tab.until(f"{LIVE} && {ROWS} > 0")
                        if name == "source":
                            await tab.until("document.querySelector('.chart canvas') !== null")
                        await asyncio.sleep(0.7)
                        assert await tab.evaluate(SIDEWAYS) <= 0, (name, width)
                        assert await tab.evaluate(CUT) <= 0, (name, width)
                        paper = await tab.evaluate("getComputedStyle(document.body).backgroundColor")
                        assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 23, 31)"}[scheme]
                        await tab.screenshot(pictures / f"{name}-{width}-{scheme}.png")

    browse(tmp_path, scenario)


def test_names_are_text_whatever_they_are(tmp_path: Path) -> None:
    """In every view, in the title and in the address."""

    async def scenario(tab: Tab, server: Served) -> None:
        fleet = fleet_of(server.lane, 3, hostile=True)
        fleet.begin(12, over_s=20)
        async with sending(fleet):
            for path in ("#/fleet?search=", "#/alerts", "#/log"):
                await tab.open("about:blank")
                await tab.open(address(server, path))
                await tab.until(f"{LIVE} && {ROWS} > 8")
                assert {shown(name) for name in HOSTILE} <= set(await texts(tab, ".source"))
                assert await tab.evaluate("document.querySelectorAll('main img, main script').length") == 0
            for name in HOSTILE:
                await tab.open(address(server, f"#/source/{fleet.place(name)}/{quote(name, safe='')}"))
                await tab.until(f"document.querySelector('h1').textContent === {json.dumps(shown(name))}")
                await tab.until("document.querySelector('.words').textContent.includes(' ahead at ')")
            assert "owned" not in await tab.evaluate("document.title")

    browse(tmp_path, scenario)


def test_all_of_it_works_by_keyboard(tmp_path: Path) -> None:
    """From the skip link through the tabs into the table, row by row, and into a source; every focus can be seen."""

    async def scenario(tab: Tab, server: Served) -> None:
        fleet_of(server.lane, 40).begin(8, over_s=20)
        focused = "(document.activeElement.textContent || document.activeElement.id).trim()"
        await tab.open(address(server))
        await tab.until(f"{LIVE} && {ROWS} > 40")
        await tab.press("Tab")
        assert await tab.evaluate(focused) == "Skip to the content"
        seen: list[str] = []
        while await tab.evaluate("document.activeElement.closest('tbody')") is None:
            outline = "getComputedStyle(document.activeElement).outlineStyle"
            assert await tab.evaluate(outline) != "none", seen
            seen.append(await tab.evaluate(focused))
            await tab.press("Tab")
            assert len(seen) < 40, seen
        assert {"Fleet", "Drift log", "Partitions", "Pause", "UTC", "Auto", "search", "CSV"} <= set(seen)
        names = await texts(tab, "tbody .source")
        for key, name in (
            ("ArrowDown", names[1]),
            ("ArrowDown", names[2]),
            ("ArrowUp", names[1]),
            ("End", names[-1]),
            ("Home", names[0]),
        ):
            await tab.press(key)
            assert await tab.evaluate(focused) == name
        await tab.press("ArrowDown")
        await tab.press("Enter")
        await tab.until(f"document.querySelector('h1').textContent === {names[1]!r}")
        await tab.open(address(server, "#/fleet"))
        await tab.until("document.querySelector('h1').textContent === 'Fleet'")
        await tab.press("/")
        await tab.type("sensor-0003")
        await tab.until(f"{ROWS} === 10")
        sort = "document.querySelector('th.c-source button')"
        await tab.evaluate(f"{sort}.focus()")
        await tab.press("Enter")
        await tab.until("document.querySelector('th.c-source').getAttribute('aria-sort') === 'ascending'")
        await tab.until("document.querySelector('tbody .source').textContent === 'sensor-00030'")
        await tab.press(" ")
        await tab.until("document.querySelector('tbody .source').textContent === 'sensor-00039'")
        assert await tab.evaluate("location.hash") == "#/fleet?sort=source&desc=1&search=sensor-0003"

    browse(tmp_path, scenario)


def test_who_is_cut_off_is_told_and_goes_on_where_he_was(tmp_path: Path) -> None:
    """The page names the last event that it has, and keeps its rows."""

    async def scenario(tab: Tab, server: Served) -> None:
        fleet = fleet_of(server.lane, 30)
        fleet.begin(8, over_s=20)
        async with sending(fleet):
            await tab.open(address(server))
            await tab.until(f"{LIVE} && {ROWS} > 30")
            await tab.evaluate("document.querySelector('tbody tr').dataset.kept = 'yes'")
            server.cut()
            await tab.until("!document.querySelector('#banner').hidden", 15)
            assert "Disconnected, trying again" in await tab.evaluate("document.querySelector('#banner').textContent")
            assert (await tab.evaluate("document.title")).startswith("disconnected")
            await tab.until(f"{LIVE} && document.querySelector('#banner').hidden", 15)
            last = [one for one in tab.requests if "/live/" in one["url"]][-1]
            assert last["headers"]["Last-Event-ID"].count(".") == 2
            assert await tab.evaluate("document.querySelector('tr[data-kept]') !== null")
            await server.stop()
            await tab.until("!document.querySelector('#banner').hidden", 15)
            await server.start()
            await tab.until(f"{LIVE} && {ROWS} > 30", 15)

    browse(tmp_path, scenario, troubles=1)


def test_a_paused_page_stands_still_and_goes_on(tmp_path: Path) -> None:
    """Nothing moves under who reads."""

    async def scenario(tab: Tab, server: Served) -> None:
        fleet = fleet_of(server.lane, 10)
        fleet.begin(8, over_s=20)
        sequences = "[...document.querySelectorAll('tbody .c-sequence')].map(e => e.textContent).join()"
        async with sending(fleet):
            await tab.open(address(server))
            await tab.until(f"{LIVE} && {ROWS} > 10")
            await tab.evaluate("document.querySelector('#pause').click()")
            before = await tab.evaluate(sequences)
            await asyncio.sleep(1.2)
            assert await tab.evaluate(sequences) == before
            assert await tab.evaluate("document.querySelector('#link-text').textContent") == "paused"
            await tab.evaluate("document.querySelector('#pause').click()")
            await tab.until(f"{LIVE} && {sequences} !== {before!r}")

    browse(tmp_path, scenario)


def test_instants_are_in_utc_or_in_local_time(tmp_path: Path) -> None:
    """To the millisecond, and the choice is kept."""

    async def scenario(tab: Tab, server: Served) -> None:
        await tab.send("Emulation.setTimezoneOverride", timezoneId="Asia/Kolkata")
        fleet = fleet_of(server.lane, 5)
        fleet.begin(8, over_s=20)
        await tab.open(address(server, "#/log"))
        first = "document.querySelector('tbody .c-time').textContent"
        await tab.until(f"{LIVE} && {ROWS} > 5")
        utc = await tab.evaluate(first)
        await tab.evaluate("document.querySelector('#zone').click()")
        local = await tab.evaluate(first)
        assert utc[-6:] == local[-6:]
        minutes = [int(text[11:13]) * 60 + int(text[14:16]) for text in (utc, local)]
        assert (minutes[1] - minutes[0]) % 1_440 == 330
        await tab.send("Page.reload")
        await tab.until(f"{LIVE} && {ROWS} > 5")
        assert await tab.evaluate("document.querySelector('#zone').textContent") == "Local"

    browse(tmp_path, scenario)


def test_the_switch_overrules_the_system_s_colours(tmp_path: Path) -> None:
    """Auto, light, dark, and round again; kept over a reload."""

    async def scenario(tab: Tab, server: Served) -> None:
        await tab.scheme("dark")
        await tab.open(address(server, "#/status"))
        await tab.until(LIVE)
        papers = []
        for _ in range(3):
            papers.append(await tab.evaluate("getComputedStyle(document.body).backgroundColor"))
            await tab.evaluate("document.querySelector('#theme').click()")
        assert papers == ["rgb(18, 23, 31)", "rgb(255, 255, 255)", "rgb(18, 23, 31)"]
        await tab.evaluate("document.querySelector('#theme').click()")
        await tab.send("Page.reload")
        await tab.until(LIVE)
        assert await tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"

    browse(tmp_path, scenario)


def test_the_title_tells_the_worst(tmp_path: Path) -> None:
    """For a tab that nobody looks at."""

    async def scenario(tab: Tab, server: Served) -> None:
        fleet = fleet_of(server.lane, 5)
        fleet.begin(12, over_s=30)
        await tab.open(address(server, "#/log"))
        await tab.until("document.title.startsWith('▲ ')")
        red = sum(abs(offset) >= 5_000 for offset in KNOWN.values())
        yellow = sum(1_000 <= abs(offset) < 5_000 for offset in KNOWN.values())
        assert await tab.evaluate("document.title") == f"▲ {red} RED · ◆ {yellow} YELLOW · Drift log · driftledger"
        server.facts = {"halted": 2}
        await tab.until("document.title.startsWith('2 halted')")

    browse(tmp_path, scenario)


def test_a_worker_that_wants_its_token_is_asked_with_it(tmp_path: Path) -> None:
    """From the address, where it does not stay, or typed; a wrong one is asked for again."""
    token = "correct-horse-battery"  # noqa: S105 - of a test

    async def scenario(tab: Tab, server: Served) -> None:
        fleet_of(server.lane, 5).begin(8, over_s=20)
        await tab.open(address(server))
        await tab.until("document.activeElement.id === 'token'")
        await tab.type("wrong")
        await tab.press("Enter")
        await tab.until("document.activeElement.id === 'token' && document.activeElement.value === ''")
        await tab.type(token)
        await tab.press("Enter")
        await tab.until(f"{LIVE} && {ROWS} > 5")
        await tab.evaluate("sessionStorage.clear()")
        await tab.open("about:blank")
        await tab.open(address(server, f"#token={token}"))
        await tab.until(f"{LIVE} && {ROWS} > 5")
        assert token not in await tab.evaluate("location.href")
        assert not [one for one in tab.requests if token in one["url"].partition("#")[0]]

    browse(tmp_path, scenario, token=token, troubles=1)


def test_a_source_has_what_came_while_its_page_was_paused(tmp_path: Path) -> None:
    """Also what came while it was cut off: each event is in the list."""
    listed = "[...document.querySelectorAll('tbody .c-sequence')].map(e => Number(e.textContent.replace(/,/g, '')))"

    async def scenario(tab: Tab, server: Served) -> None:
        fleet = fleet_of(server.lane, 0)
        fleet.begin(8, over_s=20)
        place = fleet.place("corrected")

        async def sent(count: int) -> int:
            for _ in range(count):
                fleet.send(_system.now_us() // 1_000, ["corrected"])
                await asyncio.sleep(0.02)
            return server.lane.parts[place].sequence

        await tab.open(address(server, view_of("source", fleet)))
        await tab.until(f"{LIVE} && {ROWS} === 8")
        first = await sent(3)
        await tab.until(f"{listed}[0] === {first}")
        await tab.evaluate("document.querySelector('#pause').click()")
        await sent(5)
        await tab.evaluate("document.querySelector('#pause').click()")
        last = await sent(1)
        await tab.until(f"{listed}[0] === {last} && {listed}[6] === {last - 6}")
        server.cut()
        await sent(5)
        await tab.until(f"{LIVE} && {ROWS} === 22", 15)

    browse(tmp_path, scenario, troubles=1)


def test_odd_addresses_lead_to_a_view(tmp_path: Path) -> None:
    """What somebody typed, or a program cut short."""

    async def scenario(tab: Tab, server: Served) -> None:
        fleet_of(server.lane, 5).begin(8, over_s=20)
        for path in (
            "#/source",
            "#/source/3",
            "#/constructor",
            "#/__proto__/1",
            "#token=100%25%",
            "#/fleet/%",
            "#main",
        ):
            await tab.open("about:blank")
            await tab.open(address(server, path))
            await tab.until(f"{LIVE} && {ROWS} > 5 && document.querySelector('h1').textContent === 'Fleet'")

    browse(tmp_path, scenario)


def test_a_browser_that_keeps_nothing_shows_the_page(tmp_path: Path) -> None:
    """With cookies refused, so is the storage; a token then lasts as long as the page. One of no header is none."""
    token = "correct-horse-battery"  # noqa: S105 - of a test
    refuse = (
        "for (const s of ['localStorage', 'sessionStorage']) Object.defineProperty(window, s, { get() { throw 1 } })"
    )

    async def scenario(tab: Tab, server: Served) -> None:
        fleet_of(server.lane, 5).begin(8, over_s=20)
        await tab.send("Page.addScriptToEvaluateOnNewDocument", source=refuse)
        await tab.open(address(server))
        for text in ("wrong \u20ac", token):
            await tab.until("document.activeElement.id === 'token' && document.activeElement.value === ''")
            await tab.type(text)
            await tab.press("Enter")
        await tab.until(f"{LIVE} && {ROWS} > 5")
        await tab.evaluate("document.querySelector('#zone').click()")
        assert await tab.evaluate("document.querySelector('#zone').textContent") == "Local"

    browse(tmp_path, scenario, token=token, troubles=1)


def test_what_cannot_be_shown_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A partition without a board above every view, and a view that cannot be made; both pass."""
    broken = [True]

    def fail(partition: int, *rest: Any) -> Any:
        if partition == 2 and broken:
            raise IndexError("<b>row 7</b>")
        return make_board(partition, *rest)

    monkeypatch.setattr(live_boards, "make_board", fail)
    told = "document.querySelector('#missing')"
    banner = "document.querySelector('#banner')"

    async def scenario(tab: Tab, server: Served) -> None:
        fleet = fleet_of(server.lane, 20)
        fleet.begin(8, over_s=20)
        async with sending(fleet):
            for path in ("#/fleet", "#/log"):
                await tab.open(address(server, path))
                await tab.until(f"{LIVE} && {ROWS} > 5 && {told}.textContent.includes(\"IndexError('<b>row 7</b>')\")")
                assert "sources of partition 2 are not among" in await tab.evaluate(f"{told}.textContent")
            broken.clear()
            await tab.until(f"{told}.hidden", 15)
            await tab.open(address(server, "#/fleet"))
            await tab.until(f"{LIVE} && {ROWS} > 20")
            with monkeypatch.context() as patched:
                patched.setattr(server.requests._views, "view", lambda *_: 1 // 0)
                await tab.until(f"!{banner}.hidden && {banner}.textContent.includes('ZeroDivisionError')")
                assert await tab.evaluate("document.querySelector('#link-text').textContent") == "failed"
            await tab.until(f"{LIVE} && {banner}.hidden")

    browse(tmp_path, scenario)


def test_the_drift_log_has_cause_and_estimate(tmp_path: Path) -> None:
    """Of each event, where they are known."""

    async def scenario(tab: Tab, server: Served) -> None:
        fleet_of(server.lane, 5).begin(12, over_s=20)
        await tab.open(address(server, "#/log?source=slow-7s"))
        await tab.until(f"{LIVE} && {ROWS} === 12")
        assert (await texts(tab, "tbody .c-cause"))[0] in ("BEHIND", "UNKNOWN")
        assert re.fullmatch(r"\u2212[67],\d{3} ± \d+", (await texts(tab, "tbody .c-clock"))[0])

    browse(tmp_path, scenario)


def test_the_drift_log_says_how_far_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where that is not to its beginning: rather than that there is no entry of a source."""
    monkeypatch.setattr(drift_rows, "CHUNKS_MAX", 2)
    monkeypatch.setattr(live_log, "VIEW_MS", 0)
    note = "document.querySelector('section > .note')"

    async def scenario(tab: Tab, server: Served) -> None:
        for number in range(8):
            at_ms = START_MS + number * 3_600_000
            server.lane.send(0, [Sent("busy" if number else "silent", 0, at_ms)])
            server.lane.take(0, [control("Anchor", at_ms, source="a", anchor_timestamp=None)])
        await tab.open(address(server, "#/log?source=silent"))
        await tab.until(f"{LIVE} && !{note}.hidden && {note}.textContent.includes('as far as entry 0:')")
        await tab.open(address(server, "#/log?source=nobody-anywhere"))
        monkeypatch.setattr(live_log, "VIEW_MS", 60_000)
        await tab.until(f"{LIVE} && {note}.textContent === 'No entry of this source is hot.'")

    browse(tmp_path, scenario)


def test_a_file_that_is_not_saved_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the worker's words, or that it broke off; and the next one is saved."""
    button, why = "document.querySelector('.csv')", "document.querySelector('.unsaved')"

    async def scenario(tab: Tab, server: Served) -> None:
        fleet_of(server.lane, 5).begin(3, over_s=20)
        for path in ("#/log", "#/status"):
            await tab.open(address(server, path))
            await tab.until(f"{LIVE} && {ROWS} > 2")
            with monkeypatch.context() as patched:
                patched.setattr(live_requests, "FILES_MAX", 0)
                await tab.evaluate(f"{button}.click()")
                await tab.until(
                    f"!{why}.hidden && {why}.textContent.includes('are being saved already. Ask again when')"
                )
                assert await tab.evaluate(f"{button}.textContent") == "CSV failed"
            for width in (360, 1_280):
                await tab.size(width, 800)
                assert await tab.evaluate(SIDEWAYS) <= 0
            await tab.evaluate("HTMLAnchorElement.prototype.click = function () { window.savedAs = this.download; }")
            await tab.evaluate(f"{button}.click()")
            await tab.until(f"{why}.hidden && window.savedAs === 'driftledger-{path[2:]}.csv'")
            await tab.until(f"{button}.textContent === 'CSV'")
        with monkeypatch.context() as patched:
            patched.setattr(server.requests._views, "csv", lambda *_: _breaking_off())
            await tab.evaluate(f"{button}.click()")
            await tab.until(f"!{why}.hidden && {why}.textContent.includes('broke off before its end')")

    browse(tmp_path, scenario, troubles=1)


def test_the_alerts_say_where_they_are_not_all(tmp_path: Path) -> None:
    """In words, and in the name of the file."""

    async def scenario(tab: Tab, server: Served) -> None:
        for number in range(CLOSED_MAX):
            server.lane.alerts.shelf.apply(record(f"x{number}", number + 1, "CLOSED"))
        await tab.open(address(server, "#/alerts"))
        await tab.until(f"{LIVE} && document.querySelector('.sub').textContent.includes('closed the newest 500')")
        await tab.evaluate("HTMLAnchorElement.prototype.click = function () { window.savedAs = this.download; }")
        await tab.evaluate("document.querySelector('.csv').click()")
        await tab.until("window.savedAs === 'driftledger-alerts-newest-500-closed.csv'")
        await tab.size(360, 800)
        assert await tab.evaluate(SIDEWAYS) <= 0

    browse(tmp_path, scenario)


def _breaking_off() -> Iterator[str]:
    yield "a,b\r\n"
    raise UnreachableError("its store was closed")


def _memory(folder: Path, warm_s: float, watched_s: float) -> None:
    async def scenario(tab: Tab, server: Served) -> None:
        fleet = fleet_of(server.lane, 2_000)
        fleet.begin(4, over_s=12)
        used: dict[str, list[int]] = {}
        async with sending(fleet):
            for name in ("fleet", "source", "log"):
                await tab.open("about:blank")
                await tab.open(address(server, view_of(name, fleet)))
                await tab.until(f"{LIVE} && {ROWS} > 0")
                await asyncio.sleep(warm_s)
                before = await tab.heap_bytes()
                await asyncio.sleep(watched_s)
                used[name] = [before, await tab.heap_bytes()]
        assert all(after - before < GROWN_BYTES_MAX for before, after in used.values()), used

    browse(folder, scenario)


def test_memory_is_flat(tmp_path: Path) -> None:
    """A short look at it."""
    _memory(tmp_path, 3, 6)


@pytest.mark.soak
def test_memory_is_flat_for_ten_minutes(tmp_path: Path) -> None:
    """In each view that follows a fleet."""
    _memory(tmp_path, 30, 600)


@pytest.mark.soak
def test_an_open_page_stays_as_small_and_as_soon(tmp_path: Path) -> None:
    """For ten minutes, with ten thousand sources that all change: heap, nodes, and the time until a change is seen."""
    open_s = float(os.environ.get("DRIFTLEDGER_TEST_PAGE_S", "600"))
    heap, nodes, took = list[int](), list[int](), list[float]()

    async def scenario(tab: Tab, server: Served) -> None:
        fleet = fleet_of(server.lane, 10_000)
        fleet.begin(4, over_s=12)
        await tab.open(address(server, "#/fleet?sort=delta"))
        await tab.until(f"{LIVE} && {ROWS} === 100", 20)
        async with sending(fleet):
            for look in range(LOOKS):
                await asyncio.sleep(open_s / LOOKS)
                name = f"sensor-{look * 499:05d}"
                fleet.offsets_ms[name] = 60_000.0 + 1_000 * look
                begun_ns = _system.monotonic_ns()
                fleet.send(_system.now_us() // 1_000, [name])
                await tab.until(f"document.querySelector('tbody .c-source').textContent === {name!r}")
                took.append(seconds(begun_ns))
                heap.append(await tab.heap_bytes())
                nodes.append(await tab.dom_nodes())
        assert await tab.evaluate("document.querySelector('.where').textContent") == "1\u2013100 of 10,000"

    browse(tmp_path, scenario)
    half = LOOKS // 2
    assert max(took) < 1.0, took
    assert min(heap[half:]) - min(heap[:half]) < OPEN_GROWN_BYTES_MAX, heap
    assert max(nodes[half:]) <= OPEN_NODES_MAX * max(nodes[:half]), nodes
