"""windows.md, clocks.md and page.md: their pictures, tables and examples are those that the code gives."""

from __future__ import annotations

import io
import json
import re
import struct
import tomllib
from pathlib import Path

import pytest
from PIL import Image

from docs.draw import PICTURES, draw, report, result, table
from docs.draw_clocks import CLOCK_PICTURES, figures
from docs.photograph import INVENTED, WIDTH, compact
from docs.photograph import PICTURES as SAMPLE
from streams.quantiles import SKETCH_BINS_MAX
from streams.sliding_table import EVENTS_MAX
from streams.window_settings import KEYS, read_windows
from streams.window_table import BLOCK_VALUES, BLOCKS_MAX, EXACT_VALUES, SKETCHES_MAX, WINDOWS_MAX
from streams.windows import (
    DEFINITIONS_MAX,
    DURATION_MAX_US,
    DURATION_MIN_US,
    NAME_MAX,
    WINDOWS_PER_EVENT_MAX,
    By,
    Frame,
    Function,
    Kind,
    Late,
    WindowDefinition,
    percentile_text,
)

PHOTOGRAPHS = {**SAMPLE, **INVENTED}
DOCS = Path(__file__).parents[2] / "docs"
COMMITTED = DOCS / "pictures"
#: A page with all of them is loaded over a slow line, too.
BYTES_MAX = 100_000


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All pictures, drawn anew."""
    folder = tmp_path_factory.mktemp("pictures")
    draw(str(folder))
    return folder


@pytest.fixture(scope="module")
def page() -> str:
    """The text of windows.md."""
    return (DOCS / "windows.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [*PICTURES, *CLOCK_PICTURES])
def test_a_picture_is_what_its_run_draws(drawn: Path, name: str) -> None:
    """Byte for byte; `python -m docs.draw` writes them anew."""
    assert (drawn / f"{name}.svg").read_bytes() == (COMMITTED / f"{name}.svg").read_bytes()


def test_there_are_no_other_pictures_and_none_is_large(drawn: Path) -> None:
    """Those in the repository are those that are drawn, and those that are taken of the page."""
    names = sorted(path.name for path in COMMITTED.iterdir())
    assert names == sorted([*(path.name for path in drawn.iterdir()), *(f"page_{name}.png" for name in PHOTOGRAPHS)])
    assert [path.name for path in COMMITTED.iterdir() if path.stat().st_size > BYTES_MAX] == []


@pytest.mark.parametrize(("name", "pictures"), [("windows.md", PICTURES), ("clocks.md", CLOCK_PICTURES)])
def test_a_page_shows_every_picture(name: str, pictures: dict[str, object]) -> None:
    """Each once, with a text for those who do not see it."""
    shown = re.findall(r"!\[([^\]]+)\]\(pictures/(\w+)\.svg\)", (DOCS / name).read_text(encoding="utf-8"))
    assert sorted(picture for _, picture in shown) == sorted(pictures)


def test_the_page_shows_a_photograph_of_every_view() -> None:
    """Each once, with a text for those who do not see it; all of one width, and few colours."""
    shown = re.findall(r"!\[([^\]]+)\]\(pictures/page_(\w+)\.png\)", (DOCS / "page.md").read_text(encoding="utf-8"))
    assert sorted(picture for _, picture in shown) == sorted(PHOTOGRAPHS)
    for name, (_, height, _) in PHOTOGRAPHS.items():
        content = (COMMITTED / f"page_{name}.png").read_bytes()
        assert struct.unpack(">II", content[16:24]) == (WIDTH, height)
        with Image.open(io.BytesIO(content)) as picture:
            assert picture.mode == "P"
            held = io.BytesIO()
            picture.convert("RGB").save(held, "PNG")
        assert compact(held.getvalue())[:24] == content[:24]


def test_the_figures_of_the_backlog_are_what_was_drawn() -> None:
    """Events, those whose verdict is not the clock's, and the worst estimate."""
    found = figures()
    said = " ".join((DOCS / "clocks.md").read_text(encoding="utf-8").split())
    assert f"{found['judged otherwise']} of {found['events']} events" in said
    assert f"at most {found['worst ms']} ms off" in said


def test_the_table_of_faults_is_what_was_measured(page: str) -> None:
    """Line by line."""
    assert "\n".join(table()) in page


def test_the_result_of_the_page_is_a_real_one(page: str) -> None:
    """Fields in their order, too; and so is the count of late events."""
    (shown,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    assert json.dumps(json.loads(shown)) == json.dumps(result())
    assert json.dumps(report(), separators=(",", ":")) in page


def test_the_examples_of_the_page_can_be_read(page: str) -> None:
    """Together they show every kind, frame, key and policy."""
    examples = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    found = [
        definition
        for text in examples
        if "window" in (tables := tomllib.loads(text))
        for definition in read_windows(tables["window"], text, "windows.md")
    ]
    assert {definition.kind for definition in found} == set(Kind)
    assert {definition.frame for definition in found} == set(Frame)
    assert {definition.by for definition in found} == set(By)
    assert {definition.late for definition in found} == set(Late)


def test_the_page_explains_every_key_and_function(page: str) -> None:
    """The first table has a row for each key, with the default that the code has."""
    found = re.findall(r"^\| `(\w+)` \|([^|]*)\|", page.partition("## Results")[0], re.MULTILINE)
    rows = {key: default.strip() for key, default in found}
    assert list(rows) == list(KEYS)
    local, broker = (WindowDefinition("w", 1_000, frame=frame) for frame in (Frame.LOCAL, Frame.AUTHORITY))
    for key in ("lateness_ms", "max_behind_ms"):
        field = key.replace("_ms", "_us")
        assert rows[key] == f"{getattr(local, field) // 1_000:,}; authority: {getattr(broker, field) // 1_000:,}"
    assert rows["max_ahead_ms"] == f"{local.max_ahead_us // 1_000:,}"
    assert rows["update_ms"] == f"{WindowDefinition('w', 1_000, late=Late.UPDATE).update_us // 1_000:,}"
    assert rows["early_ms"] == f"{local.early_us}"
    assert (rows["frame"], rows["by"], rows["late"]) == tuple(f'`"{x}"`' for x in (local.frame, local.by, local.late))
    assert rows["functions"] == ", ".join(local.functions)
    assert rows["percentiles"] == f"`[{', '.join(map(percentile_text, local.percentiles))}]`"
    assert all(f"`{function}`" in page for function in Function)


@pytest.mark.parametrize(
    "said",
    [
        f"1 to {NAME_MAX} lower-case letters",
        f"{DURATION_MIN_US // 1_000} ms to {DURATION_MAX_US // 86_400_000_000} days",
        f"at most {WINDOWS_PER_EVENT_MAX:,}",
        f"at most {DEFINITIONS_MAX} windows",
        f"{WINDOWS_MAX:,} open windows",
        f"{BLOCKS_MAX * BLOCK_VALUES:,} values",
        f"up to {EXACT_VALUES} values",
        f"more than {SKETCH_BINS_MAX:,} bins",
        f"{SKETCHES_MAX:,} windows",
        f"keep\n{EVENTS_MAX:,} events",
    ],
)
def test_the_page_knows_the_limits(page: str, said: str) -> None:
    """As the code has them."""
    assert said in page
