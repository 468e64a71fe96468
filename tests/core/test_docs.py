"""What the documents name is there: links, headings, files, settings, metrics and paths."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lifecycle.live_questions import VIEWS
from schemas.codec import RECORDS, single_object_prefix
from streams import lifecycle_requests, metrics, query_requests
from streams.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    path.relative_to(REPOSITORY).as_posix()
    for pattern in ("*.md", "docs/*.md", "benchmarks/*.md")
    for path in REPOSITORY.glob(pattern)
)
#: Words of code, and blocks of it.
_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_FILE = re.compile(r"`((?:schemas|streams|lifecycle|docs|tests|benchmarks)/[\w/]+\.(?:py|js|avsc|md|lock))`")


def text_of(name: str) -> str:
    """A document."""
    return (REPOSITORY / name).read_text(encoding="utf-8")


def anchors_in(text: str) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#{1,6} (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_each_link_leads_somewhere(name: str) -> None:
    """To a file of the repository, and to a heading that is in it."""
    dead = []
    for link in _LINK.findall(_CODE.sub("", text_of(name))):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        file = REPOSITORY / name if not path else (REPOSITORY / name).parent / path
        if not file.exists() or (anchor and anchor not in anchors_in(file.read_text(encoding="utf-8"))):
            dead.append(link)
    assert dead == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_each_file_that_is_named_is_there(name: str) -> None:
    """A module that moved is named by its new place."""
    assert [path for path in _FILE.findall(text_of(name)) if not (REPOSITORY / path).exists()] == []


def test_operators_can_look_up_each_setting_and_metric() -> None:
    """In the tables of docs/operations.md, and nothing that is no more."""
    rows = [line.split(" | ")[0] for line in text_of("docs/operations.md").splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)", row)}
    assert set(Settings.model_fields) - {"windows"} <= named
    families = {one.name + ("_total" if one.type == "counter" else "") for one in metrics.REGISTRY.collect()}
    assert {name for name in named if name.startswith("driftledger_")} == families


def test_each_record_has_the_prefix_that_formats_says() -> None:
    """A schema that changed has another fingerprint."""
    row = re.compile(r"^\| (\w+) \| `[\w.]+\.avsc` \| `([0-9a-f ]+)` \|$", re.MULTILINE)
    written = {record: bytes.fromhex(prefix) for record, prefix in row.findall(text_of("docs/formats.md"))}
    assert written == {record: single_object_prefix(record) for record in RECORDS}


def test_who_asks_a_worker_can_look_up_each_path() -> None:
    """In docs/operations.md."""
    written = text_of("docs/operations.md")
    paths = [*query_requests.PATHS, *lifecycle_requests.PATHS, *(f"/live/{view}" for view in VIEWS), "/hot", "/put"]
    assert [path for path in paths if path not in written] == []
