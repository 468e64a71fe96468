"""Entries of archives and ledger as one: each once, in order, wherever it is, or an error that says where."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from lifecycle.all_entries import AllEntries
from lifecycle.archive_files import files_of
from lifecycle.archived_chunks import ArchiveFileDamagedError, archives_of
from lifecycle.job_steps import Place, Work, compact, prune, seal
from lifecycle.manifest import Tree
from lifecycle.tiered import MissingChunkError
from lifecycle.tiers import Grain, Tier
from schemas.columns import slice_rows
from schemas.errors import DriftledgerError
from schemas.topics import topic_names
from streams.sequence import encode
from streams.settings import Settings
from tests.core.hours import over_hours
from tests.core.job_scenario import HOURS, LENGTH, SEED, FileLease
from tests.core.test_job_steps import FollowingLease, bytes_of, seal_all, work_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from schemas.columns import Entries
    from tests.core.hours import Hours

LEDGER: Any = SimpleNamespace(
    settings=Settings(data_dir=Path("/nowhere")),
    names=SimpleNamespace(sequenced="s", manifest="m"),
    log=SimpleNamespace(topic=lambda _: None),
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


class _Elsewhere:
    """Archives of which all files lie in a folder of their own, as the settings of who wrote them say."""

    def __init__(self, hours: Hours, folder: Path, patch: pytest.MonkeyPatch) -> None:
        uri = f"file://{folder}/cold"
        self.settings = Settings(data_dir=folder / "data", archive_uri=uri, archive_uri_tiers="historical,deep")
        self.names = topic_names(self.settings.prefix, self.settings.ledger, self.settings.input_topic)
        files = files_of(self.settings, self.names.manifest, str)
        work = Work(files, FileLease(folder / "manifest"), "a-job", lambda: 1)
        for hour in hours.hours:
            place = Place(Tier.HISTORICAL, Grain.HOURLY, hour.period)
            seal(work, hours.partition, place, hour.chunks, hours.batches(hour.headers[0].first_index, 1000))
        self.facts = [segment.facts for segment in work.lease.tree.parts[hours.partition]]
        patch.setattr("lifecycle.archived_chunks.ManifestLog", lambda *_: FollowingLease(folder))
        patch.setattr("lifecycle.archived_chunks.Log", lambda _: self.log())

    def log(self) -> Any:
        """Of a cluster that has the manifest."""
        return SimpleNamespace(topic=lambda _: "there", cluster_id=lambda: "a", close=lambda: None)

    def ledger(self, settings: Settings) -> Any:
        """As somebody with those settings sees it."""
        return SimpleNamespace(settings=settings, names=self.names, log=self.log(), bootstrap="")


@pytest.fixture
def elsewhere(hours: Hours, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> _Elsewhere:
    """In place of another disk."""
    return _Elsewhere(hours, tmp_path, monkeypatch)


@pytest.mark.parametrize("local", ["data", "another"])
def test_archives_are_read_where_settings_say(
    hours: Hours, kept: _Kept, elsewhere: _Elsewhere, tmp_path: Path, local: str
) -> None:
    """Also by who has no data directory."""
    settings = elsewhere.settings.model_copy(update={"data_dir": tmp_path / local})
    kept.begins = elsewhere.facts[-1].last_index + 1
    everything = AllEntries(elsewhere.ledger(settings))
    assert everything.begins(hours.partition) == 1
    assert read(everything, hours, 1, LENGTH) == bytes_of(hours, 1, LENGTH)
    with archives_of(settings, "nowhere:1") as archives:
        assert archives is not None
        assert archives.headers(hours.partition, 0, 1)[0].first_index == 1


def test_who_has_no_archives_here_reads_what_the_ledger_has(
    hours: Hours, kept: _Kept, elsewhere: _Elsewhere, tmp_path: Path
) -> None:
    """And is told where the rest may be: it never begins late without a word."""
    settings = Settings(data_dir=tmp_path / "another")
    everything = AllEntries(elsewhere.ledger(settings))
    assert read(everything, hours, 1, LENGTH) == bytes_of(hours, 1, LENGTH)
    assert kept.asked == [(1, LENGTH)]
    kept.begins = 500
    assert everything.begins(hours.partition) == 1
    with pytest.raises(DriftledgerError, match=r"entries 1 to 499 are in no archive.* or the archive_uri, that has"):
        read(everything, hours, 1, LENGTH)
    with archives_of(settings, "nowhere:1") as archives:
        assert archives is not None
        assert archives.last_sequence(hours.partition) == elsewhere.facts[-1].last_sequence
        with pytest.raises(MissingChunkError, match=r"is not there\).* data directory, or the archive_uri"):
            archives.headers(hours.partition, 0, 1)


def test_where_nothing_was_ever_archived_there_are_no_archives(
    monkeypatch: pytest.MonkeyPatch, elsewhere: _Elsewhere, tmp_path: Path
) -> None:
    """As the manifest says, or that there is none."""
    settings = Settings(data_dir=tmp_path / "another")
    monkeypatch.setattr("lifecycle.archived_chunks.ManifestLog", lambda *_: SimpleNamespace(refresh=Tree))
    with archives_of(settings, "nowhere:1") as archives:
        assert archives is None
    monkeypatch.setattr(elsewhere, "log", lambda: SimpleNamespace(topic=lambda _: None, close=lambda: None))
    monkeypatch.setattr("lifecycle.archived_chunks.ManifestLog", lambda *_: SimpleNamespace(refresh=pytest.fail))
    with archives_of(settings, "nowhere:1") as archives:
        assert archives is None
