"""Entries of archives and ledger as one: each once, in order, wherever it is, or an error that says where."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from lifecycle.all_entries import AllEntries
from lifecycle.archived_chunks import ArchiveFileDamagedError
from lifecycle.job_steps import Place, compact, prune
from lifecycle.tiers import Grain, Tier
from schemas.columns import slice_rows
from schemas.errors import DriftledgerError
from streams.sequence import encode
from tests.core.hours import over_hours
from tests.core.job_scenario import HOURS, LENGTH, SEED
from tests.core.test_job_steps import FollowingLease, bytes_of, seal_all, work_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from schemas.columns import Entries
    from tests.core.hours import Hours

LEDGER: Any = SimpleNamespace(
    settings=SimpleNamespace(data_dir=Path("/nowhere")),
    names=SimpleNamespace(sequenced="s", manifest="m"),
    log=None,
    bootstrap="",
)
TAIL: Any = None


@pytest.fixture(scope="module")
def hours() -> Hours:
    """A ledger of some hours."""
    return over_hours(SEED, LENGTH, HOURS)


class _Kept:
    """What the ledger still has: the entries from an index on."""

    def __init__(self, hours: Hours, patch: pytest.MonkeyPatch) -> None:
        self._hours, self.begins = hours, 1
        self.asked: list[tuple[int, int]] = []
        patch.setattr("lifecycle.all_entries.first_index", lambda *_: self.begins)
        patch.setattr("lifecycle.all_entries.entries_between", self._between)

    def _between(
        self, _log: Any, _at: str, _topic: str, _p: int, _tail: Any, first: int, last: int
    ) -> Iterator[Entries]:
        self.asked.append((first, last))
        for entries in self._hours.batches(first, 700):
            yield slice_rows(entries, 0, max(0, min(entries.index.size, last - int(entries.index[0]) + 1)))
            if int(entries.index[-1]) >= last:
                return


@pytest.fixture
def kept(hours: Hours, monkeypatch: pytest.MonkeyPatch) -> _Kept:
    """In place of a broker."""
    return _Kept(hours, monkeypatch)


def read(everything: AllEntries, hours: Hours, first: int, last: int) -> bytes:
    """As they stand in the ledger."""
    parts = []
    for entries in everything.read(hours.partition, TAIL, first, last):
        encoded, starts = encode(entries)
        parts.append(encoded[: starts[-1]].tobytes())
    return b"".join(parts)


def test_every_entry_is_there_once(hours: Hours, kept: _Kept, tmp_path: Path) -> None:
    """Any range, over files and into the ledger, which is asked for the rest alone; also when that begins late."""
    work = work_in(tmp_path)
    segments = seal_all(work, hours)
    everything = AllEntries(LEDGER, (work.files, FollowingLease(tmp_path)))
    end, inner = segments[-1].facts.last_index, segments[1].facts.first_index
    ranges = ((1, LENGTH), (inner - 3, inner + 700), (end, end + 1), (end + 9, LENGTH))
    for begins in (1, end + 1):
        kept.begins = begins
        assert everything.begins(hours.partition) == 1
        for first, last in ranges:
            kept.asked.clear()
            assert read(everything, hours, first, last) == bytes_of(hours, first, last)
            assert kept.asked == ([(max(first, end + 1), last)] if last > end else [])
    assert list(AllEntries(LEDGER).read(hours.partition, TAIL, 9, 8)) == []


def test_files_that_are_joined_meanwhile_are_found_again(hours: Hours, kept: _Kept, tmp_path: Path) -> None:
    """By who began with those of before; one that is gone for good is named."""
    work = work_in(tmp_path)
    segments = seal_all(work, hours)
    everything = AllEntries(LEDGER, (work.files, FollowingLease(tmp_path)))
    batches = everything.read(hours.partition, TAIL, 1, LENGTH)
    first = int(next(batches).index[-1])
    day = compact(work, Place(Tier.HISTORICAL, Grain.DAILY, "2026-01-30"), segments[:2])
    assert sum(entries.index.size for entries in batches) == LENGTH - first
    (work.files.root / day.path).unlink()
    with pytest.raises(ArchiveFileDamagedError, match=day.path):
        read(everything, hours, 1, LENGTH)
    assert kept.asked == [(segments[-1].facts.last_index + 1, LENGTH)]


def test_what_neither_has_is_told(hours: Hours, kept: _Kept, tmp_path: Path) -> None:
    """The first of it; and from where on all is there."""
    work = work_in(tmp_path)
    segments = seal_all(work, hours)
    lease = FollowingLease(tmp_path)
    prune(work, hours.partition, segments[:1])
    everything = AllEntries(LEDGER, (work.files, lease))
    kept.begins = segments[-1].facts.last_index + 5
    assert everything.begins(hours.partition) == kept.begins
    with pytest.raises(DriftledgerError, match=rf"entries {kept.begins - 4} to {kept.begins - 1} are in no archive"):
        read(everything, hours, segments[1].facts.first_index, LENGTH)
    kept.begins = segments[1].facts.last_index
    assert everything.begins(hours.partition) == segments[1].facts.first_index
    with pytest.raises(DriftledgerError, match="entries 1 to"):
        read(everything, hours, 1, LENGTH)
