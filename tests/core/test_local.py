"""What is read from the ledger for a question without a worker, from whatever snapshots there are."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from lifecycle import local, store_dump, stores_here
from lifecycle.local import LocalPartitions
from lifecycle.store import Store
from lifecycle.store_dump import STORE
from schemas.errors import UnreachableError
from streams.judge import Judge
from streams.ledger_reader import Tail
from streams.sequence import Head
from streams.settings import Settings
from streams.snapshots import Packed, Snapshot, pack
from tests.core.judge_oracle import START_MS, Ledger, Row, event
from tests.core.test_hot_store import chunks_of, write_all
from tests.core.test_store import bits, every, hashed, long_ledger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from schemas.columns import Entries

LENGTH = 60
#: With several chunks.
STORED = 1_500


class _Log:
    """Holds nothing."""

    def __init__(self, _bootstrap: str) -> None:
        pass

    def topic(self, _name: str) -> None:
        """There is none."""

    def close(self) -> None:
        """Nothing."""


def states_of(ledger: Ledger, size: int) -> tuple[dict[tuple[str, int], Packed], object]:
    """Snapshots of judge and store after every so many entries, by fold and index; the rows after all of them."""
    judge, fold = Judge(), Store()
    judged, state = judge.new_state(0), fold.new_state(0)
    found: dict[tuple[str, int], Packed] = {}
    for entries in ledger.batches(every(size)):
        assert fold.step(state, entries, judge.step(judged, entries)) == []
        index, chain = int(entries.index[-1]), entries.chain_hash[-1].tobytes()
        of_judge = Snapshot(judge.name, judge.version, 0, index, chain, judge.dump(judged))
        of_store = Snapshot(STORE, store_dump.VERSION, 0, index, chain, store_dump.dump(state))
        found[judge.name, index], found[STORE, index] = pack(of_judge, 0), pack(of_store, 0)
    fold.publish(state)
    rows = fold.unsealed(state)
    assert rows is not None
    return found, bits(rows.rows)


def read_of(ledger: Ledger, failures: int = 0) -> Any:
    """In place of `entries_between`; the first times it is asked, the broker is away."""
    left = [UnreachableError("the broker is away")] * failures

    def entries_between(_log: Any, _bootstrap: str, _topic: str, _p: int, _tail: Tail, first: int, last: int) -> Any:
        def between() -> Iterator[Entries]:
            if left:
                raise left.pop()
            for entries in ledger.batches(every(1)):
                if first <= int(entries.index[0]) <= last:
                    yield entries

        return between()

    return entries_between


def found_for(chosen: list[Packed]) -> Any:
    """In place of `read_snapshots`, for one who wants judge and store of partition 0 only."""

    def read_snapshots(_log: Any, _topic: str, _lane: int, folds: tuple[str, ...], partition: int) -> list[Packed]:
        assert (set(folds), partition) == ({Judge().name, STORE}, 0)
        return sorted(chosen, key=lambda packed: -packed.index)

    return read_snapshots


def serve_ledger(monkeypatch: pytest.MonkeyPatch, ledger: Ledger, snapshots: list[Packed], failures: int = 0) -> None:
    """A broker with that ledger and these snapshots, which does not answer the first questions for entries."""
    length = ledger.entries.index.size
    monkeypatch.setattr(local, "Log", _Log)
    monkeypatch.setattr(local, "read_tail", lambda *_: Tail(Head(length, length), length, START_MS))
    monkeypatch.setattr(local, "read_snapshots", found_for(snapshots))
    monkeypatch.setattr(stores_here, "entries_between", read_of(ledger, failures))
    monkeypatch.setattr(stores_here, "first_index", lambda *_: 1)


@pytest.mark.parametrize(("judged", "stored", "read"), [(20, 40, 40), (40, 40, 20), (0, 40, 60), (20, 0, 60)])
@pytest.mark.parametrize("damaged", [None, Judge().name, STORE])
def test_a_snapshot_of_judge_may_be_older_than_that_of_the_store(
    judged: int, stored: int, read: int, damaged: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As where the newer one of judge was not written: each row is there, once. 0: there is none.

    damaged: of this fold there is one newer still, of no use.
    """
    ledger = hashed(Ledger([Row(event("a", f"e{i}", START_MS * 1000)) for i in range(LENGTH)]), 1)
    snapshots, expected = states_of(ledger, 20)
    chosen = [snapshots[key] for key in ((Judge().name, judged), (STORE, stored)) if key[1]]
    if damaged is not None:
        chosen.append(replace(snapshots[damaged, LENGTH], chunks=[b"no frame"]))
    serve_ledger(monkeypatch, ledger, chosen)
    with LocalPartitions(Settings(data_dir=tmp_path), "nowhere:1", [0]) as partitions:
        assert [place.read for place in partitions.found] == [read]
        unsealed = partitions.unsealed(0)
        assert unsealed is not None
        assert bits(unsealed.rows) == expected


@pytest.mark.parametrize(("fold", "read"), [(Judge().name, 40), (STORE, 60)])
def test_a_snapshot_that_cannot_be_loaded_is_passed_over(
    fold: str, read: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As one of an older layout: it is logged, and an older one, or the ledger, takes its place."""
    ledger = hashed(Ledger([Row(event("a", f"e{i}", START_MS * 1000)) for i in range(LENGTH)]), 1)
    snapshots, expected = states_of(ledger, 20)
    chosen = {key: snapshots[key] for key in ((Judge().name, 20), (Judge().name, 40), (STORE, 40))}
    head = chosen[fold, 40]
    chosen[fold, 40] = pack(Snapshot(fold, head.version, 0, 40, head.chain_hash, b"?"), 0)
    serve_ledger(monkeypatch, ledger, list(chosen.values()))
    with capture_logs() as lines, LocalPartitions(Settings(data_dir=tmp_path), "nowhere:1", [0]) as partitions:
        assert [place.read for place in partitions.found] == [read]
        unsealed = partitions.unsealed(0)
        assert unsealed is not None
        assert bits(unsealed.rows) == expected
    assert [(line["event"], line["fold"], line["index"]) for line in lines] == [("snapshot_unusable", fold, 40)]


def test_a_store_is_not_passed_over_for_a_ledger_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is told: to read all of the ledger in place of a good store helps nobody."""
    settings = Settings(data_dir=tmp_path)
    folder = tmp_path / "hot" / "0" / f"{settings.prefix}.{settings.ledger}" / "lane-0"
    write_all(folder, chunks_of(0, 1, STORED))
    ledger = long_ledger(1, STORED)
    serve_ledger(monkeypatch, ledger, [], failures=1)
    with pytest.raises(UnreachableError, match="the broker is away"):
        LocalPartitions(settings, "nowhere:1", [0])
    with LocalPartitions(settings, "nowhere:1", [0]) as partitions:
        assert [place.store for place in partitions.found] == [str(folder)]
    serve_ledger(monkeypatch, long_ledger(2, STORED), [])
    with capture_logs() as lines, LocalPartitions(settings, "nowhere:1", [0]) as partitions:
        assert [place.store for place in partitions.found] == [None]
    assert [(line["event"], line["error"]) for line in lines] == [("hot_store_passed_over", "it is of another ledger")]
