"""Windows run over history on a real ledger: what live said, whether rows are hot, archived or cut from the ledger."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from lifecycle.all_entries import AllEntries
from lifecycle.archived_chunks import ArchiveFileDamagedError
from lifecycle.jobs import Jobs
from lifecycle.reader import Reader
from lifecycle.result_stream import write_results
from lifecycle.steps import Job
from lifecycle.verifying import verify
from lifecycle.window_run import HistoryRun
from schemas.errors import DriftledgerError
from schemas.instants import format_us
from streams.aggregates import Result, parse
from streams.cli.main import main
from streams.queries import Ledger as Queries
from streams.restore import entries_between
from streams.windows import DURATION_MAX_US, By, Doubtful, Frame, Late, WindowDefinition, percentile_text
from tests.broker.harness import Ledger, wait_for
from tests.broker.job_ledgers import later, oldest_snapshot
from tests.broker.test_cut import cut
from tests.broker.window_ledgers import WINDOWS, Past

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: A chunk and more.
EVENTS = 9_000
MORE = 500
S = 1_000_000
IDEA = """
[[window]]
name = "idea"
size_ms = 30_000
percentiles = [50]
late = "update"
update_ms = 86_400_000
"""
#: Takes every event, whenever it comes: what a question over stored events says, too.
TAKES_ALL = WindowDefinition(
    "takes_all", 120 * S, percentiles=(1_000, 50_000, 99_900), late=Late.UPDATE, update_us=DURATION_MAX_US,
    max_ahead_us=DURATION_MAX_US,
)  # fmt: skip
DEFINITIONS = (
    *WINDOWS,
    TAKES_ALL,
    WindowDefinition("right", 5 * S, frame=Frame.CORRECTED, by=By.ALL, red=Doubtful.CORRECT, early_us=S),
)


def live(ledger: Ledger) -> list[Result]:
    """What stands on the topic of results; where it stands and when it came does not matter."""
    found = []
    for (topic, partition), output in ledger.outputs().items():
        if topic == "aggregates":
            found += [parse(value or b"", 0, partition, 0) for _, value in output]
    return [one for one in found if isinstance(one, Result)]


def last_of(results: list[Result]) -> dict[Any, Result]:
    """The last revision of each window."""
    return {one.window: one for one in results}


def history(
    ledger: Ledger,
    name: str,
    definition: WindowDefinition | None,
    *,
    every: bool = False,
    from_us: int | None = None,
    to_us: int | None = None,
) -> list[Result]:
    """Of all partitions."""
    with Queries(ledger.settings, ledger.bootstrap) as queries:
        runs = [HistoryRun(queries, partition, name, definition, from_us, to_us) for partition in ledger.partitions]
        return [result for run in runs for result in run.results(every=every)]


def check(ledger: Ledger) -> int:
    """Of each definition all revisions as live, and its last ones as if it were new. Returns how many results."""
    said = live(ledger)
    for definition in DEFINITIONS:
        wanted = [one for one in said if one.definition == definition.name]
        assert wanted
        assert history(ledger, definition.name, None, every=True) == wanted
        as_new = history(ledger, definition.name, definition)
        assert last_of(as_new) == last_of([replace(one, version=0) for one in wanted])
        assert len(as_new) == len(last_of(as_new))
    return len(said)


def check_percentiles(ledger: Ledger) -> None:
    """What a question says of stored events is what the windows that took all of them said."""
    said = {
        (one.window_start_us, one.key): one for one in last_of(live(ledger)).values() if one.definition == "takes_all"
    }
    names = [percentile_text(percentile) for percentile in TAKES_ALL.percentiles]
    table = Reader(ledger.settings).aggregate(
        by="source", window_ms=120_000, percentiles=names, partitions=[0], functions=["min", "max"]
    )
    rows = table.to_pylist()
    methods = set()
    closed_us = max(one.window_end_us for one in said.values())
    for row in rows:
        one = said.pop((int(row["window_start"].timestamp()) * S, row["source"]), None)
        if one is None:
            assert row["window_end"].timestamp() * S > closed_us
            continue
        assert (row["count"], row["values"]) == (one.count, one.values)
        assert (row["method"], row["relative_error"]) == (one.method, one.relative_error)
        assert {name: row[f"p{name}"] for name in names} == one.percentiles
        assert (row["min"], row["max"]) == (one.functions["min"], one.functions["max"])
        methods.add(row["method"])
    assert not said
    assert methods == {"exact", "ddsketch"}
    exact = Reader(ledger.settings).aggregate(
        by="source", window_ms=120_000, percentiles=names, partitions=[0], exact=True
    )
    for row, other in zip(rows, exact.to_pylist(), strict=True):
        assert other["method"] == "exact"
        for name in names:  # none where no row of a window has a value
            known = other[f"p{name}"]
            assert row[f"p{name}"] == (None if known is None else pytest.approx(known, rel=0.01))


@pytest.fixture
def ledger(kafka: Any, prefix: str, tmp_path: Path) -> Ledger:
    """Of one partition, whose sources' clocks are late, ahead and lost; its worker has ended."""
    options = {
        "partitions": 1, "lanes": 1, "snapshot_interval_ms": 1_000, "heartbeat_interval_ms": 200,
        "windows": DEFINITIONS,
    }  # fmt: skip
    made = Ledger(kafka.bootstrap, prefix, tmp_path, options).create()
    send(made, Past(made), EVENTS)
    return made


def send(ledger: Ledger, past: Past, count: int, *, in_snapshots: bool = True) -> None:
    """More events, all of them sequenced and hot, and in every snapshot."""
    with ledger.worker() as worker:
        past.send(count)
        ledger.wait_level(worker)
        wait_for(lambda: worker.output.count("hot_tier_level") == 1, "it is hot")
        head = ledger.head(0)
        assert head is not None
        if in_snapshots:
            wait_for(lambda: oldest_snapshot(ledger) >= head.index, "all snapshots are of its end", poll_s=1)
        worker.stop()


def read_from(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The first index that is read from the ledger, each time."""
    found: list[int] = []

    def noted(*asked: Any) -> Iterator[Any]:
        found.append(asked[5])
        return entries_between(*asked)

    monkeypatch.setattr("lifecycle.all_entries.entries_between", noted)
    return found


def test_history_says_what_live_said(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hot, then in part archived, then cut from the ledger, then gone on with."""
    began = read_from(monkeypatch)
    results = check(ledger)
    assert results > 1_000
    assert set(began) == {1}
    check_percentiles(ledger)

    for job in (Job.SEAL, Job.COMPACT):
        with later(8.5), Jobs(ledger.settings, ledger.bootstrap) as jobs:
            jobs.run(job, lambda *_: None)
            last = jobs.tree().parts[0][-1].facts.last_index
    began.clear()
    assert check(ledger) == results
    assert set(began) == {last + 1}
    check_percentiles(ledger)

    rule = {"version": 1, "ledger": "cut_when_proved", "ledger_keep_hours": 0}
    with Jobs(ledger.settings, ledger.bootstrap) as jobs:
        folder = jobs.files.root / "configuration"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "retention_policies.json").write_text(json.dumps(rule))
    with ledger.worker() as worker:
        worker.wait_live()
        assert cut(ledger)
        worker.stop()
    with Queries(ledger.settings, ledger.bootstrap) as queries:
        assert queries.first(0).index > EVENTS // 2
    assert check(ledger) >= results

    send(ledger, Past(ledger), MORE, in_snapshots=False)
    assert check(ledger) > results


def test_a_run_is_of_what_is_asked_for(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A span, a key, a file of a window that no ledger has; as JSON lines and as Arrow; and what is refused."""
    for name, value in ledger.environment().items():
        monkeypatch.setenv(name, value)
    definition = TAKES_ALL
    everything = history(ledger, "takes_all", definition)
    ends = sorted({one.window_end_us for one in everything})
    between = [one for one in everything if ends[0] <= one.window_start_us and one.window_end_us <= ends[-1]]
    assert 0 < len(between) < len(everything)
    assert history(ledger, "takes_all", definition, from_us=ends[0], to_us=ends[-1]) == between

    file = tmp_path / "idea.toml"
    file.write_text(IDEA)
    asked = ["windows", "run", "idea", "--file", str(file), "--key", "pump-1", "--output", "jsonl"]
    assert main([*asked, "--final-only"]) == 0
    shown = capsys.readouterr()
    rows = [json.loads(line) for line in shown.out.splitlines()]
    assert {(row["key"], row["final"], row["version"]) for row in rows} == {("pump-1", True, 0)}
    assert [row["window_end"] for row in rows] == sorted(row["window_end"] for row in rows)
    assert "partition 0: " in shown.err
    assert "events left out: " in shown.err
    limits = ["--from", format_us(rows[1]["window_start_us"]), "--to", format_us(rows[1]["window_end_us"])]
    assert main([*asked, *limits]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == rows[1:2]
    target = io.BytesIO()
    assert write_results((one.row() for one in everything), target) == len(everything)
    table = pa.ipc.open_stream(target.getvalue()).read_all()
    assert table["count"].to_pylist() == [one.count for one in everything]
    assert [dict(one) for one in table["percentiles"].to_pylist()] == [one.percentiles for one in everything]

    for wrong, told in (
        (["windows", "run", "nobody", "--file", str(file)], "no window 'nobody' is in"),
        (["windows", "run", "idea", "--file", str(file), "--as-live"], "Give one or the other"),
        (["windows", "run", "idea", "--file", str(tmp_path)], "cannot be read"),
        (["windows", "run", "idea", "--file", str(file), "--from", "9", "--to", "8"], "no window lies between"),
        (["windows", "run", "idea", "--file", str(file), "--from", "soon"], "soon"),
    ):
        assert main(wrong) == 2
        assert told in capsys.readouterr().err


def test_what_is_lost_or_damaged_is_told(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive of which a byte is another, and one that is not there when the ledger is cut."""
    with later(8.5), Jobs(ledger.settings, ledger.bootstrap) as jobs:
        jobs.run(Job.SEAL, lambda *_: None)
        (segment,) = jobs.tree().parts[0]
        verify(jobs.files, segment)
        file = jobs.files.root / segment.path
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ArchiveFileDamagedError, match=segment.path):
        history(ledger, "takes_all", TAKES_ALL)
    file.unlink()
    with pytest.raises(ArchiveFileDamagedError, match=segment.path):
        history(ledger, "takes_all", TAKES_ALL)
    ledger.delete_records(ledger.names.sequenced, 0, ledger.records(ledger.names.sequenced, 0)[5_000].offset() or 0)
    elsewhere = ledger.settings.model_copy(update={"data_dir": ledger.folder / "nothing"})
    with Queries(elsewhere, ledger.bootstrap) as queries:
        with pytest.raises(DriftledgerError, match="Give this process the data directory, or the archive_uri"):
            list(HistoryRun(queries, 0, "takes_all", TAKES_ALL).results())
        monkeypatch.setattr("lifecycle.all_entries.archives_at", lambda *_: None)  # as if they were pruned
        run = HistoryRun(queries, 0, "takes_all", TAKES_ALL)
        found = list(run.results())
        assert run.first_index > 5_000
        assert all(one.count for one in found)
        with pytest.raises(DriftledgerError, match="in no archive below"):
            list(AllEntries(queries).read(0, queries.tail(0), 1, 9))  # type: ignore[arg-type]
