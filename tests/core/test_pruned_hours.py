"""What a keeper makes of hours that left the hot tier, and of archives that were pruned since."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from lifecycle import keeper as keeper_module
from lifecycle.archive_files import files_of
from lifecycle.chunk_codec import encode_applied
from lifecycle.chunks import Applied
from lifecycle.hot_store import HotStore
from lifecycle.job_steps import Place, Work, prune, seal
from lifecycle.keeper import Keeper
from lifecycle.owned import OwnedLane
from lifecycle.steps import Job
from lifecycle.store import Sealed
from lifecycle.tiered import Tiered
from lifecycle.tiers import Grain, Tier
from schemas.clock import SkewedTime, Step, SystemTime, using
from schemas.errors import DriftledgerError
from schemas.topics import topic_names
from streams.settings import Settings
from tests.core.hours import over_hours
from tests.core.job_scenario import FileLease
from tests.core.test_job_steps import FollowingLease

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lifecycle.chunks import Header
    from tests.core.hours import Hours

YEAR_NS = 365 * 86_400 * 10**9
HOURS = 5


class _Log:
    """Of a broker that nobody asks."""

    def __init__(self, _bootstrap: str) -> None:
        pass

    def cluster_id(self) -> str:
        """Any."""
        return "a-cluster"

    def close(self) -> None:
        """Nothing."""


class _Tier:
    """A lane's hot tier, of one store."""

    def __init__(self, store: HotStore) -> None:
        self._store = store

    @contextmanager
    def reading(self) -> Iterator[HotStore]:
        """It, for as long as it is wanted."""
        yield self._store


class _Kept(NamedTuple):
    """A partition whose hours are all archived and, but for the last, away. firsts: of its chunks."""

    folder: Path
    work: Work
    store: HotStore
    keeper: Keeper
    firsts: list[int]

    def demote(self) -> list[str]:
        """By the rules, in a year; the periods of what moved."""
        with using(SkewedTime(SystemTime(), Step(YEAR_NS))):
            return [step.period for step in self.keeper.move(self.folder, Job.DEMOTE, [0], lambda *_: None)]

    def prune(self, files: int) -> None:
        """The first so many files; who had them open has heard of it."""
        prune(self.work, 0, self.work.lease.tree.parts[0][:files])
        self.keeper.archives.refresh()

    def seen(self, store: HotStore | None = None) -> list[int]:
        """First sequences of what a question sees."""
        return [header.first_sequence for header in Tiered(store or self.store, self.keeper.archives).headers(0, 1, 64)]


@pytest.fixture(scope="module")
def hours() -> Hours:
    """The first two have a chunk each, and so has the last."""
    made = over_hours(5, 20_000, HOURS, partition=0)
    assert [len(made.hours[at].chunks) for at in (0, 1, -1)] == [1, 1, 1]
    return made


@pytest.fixture
def kept(hours: Hours, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[_Kept]:
    """Sealed, and all of it hot."""
    settings = Settings(data_dir=tmp_path)
    names = topic_names(settings.prefix, settings.ledger, settings.input_topic)
    lease = FileLease(tmp_path / "manifest")
    work = Work(files_of(settings, names.manifest, str), lease, "a-job", lambda: 1)
    for hour in hours.hours:
        place = Place(Tier.HISTORICAL, Grain.HOURLY, hour.period)
        seal(work, 0, place, hour.chunks, hours.batches(hour.headers[0].first_index, 1000))
    store = HotStore.open(tmp_path / "store")
    store.write(sealed_of(hours))
    monkeypatch.setattr(keeper_module, "Log", _Log)
    monkeypatch.setattr(keeper_module, "ManifestLog", lambda *_: FollowingLease(tmp_path))
    tier: Any = _Tier(store)
    keeper = Keeper(settings, "nowhere:1", lambda: [OwnedLane((0,), {}, tier)])
    yield _Kept(tmp_path, work, store, keeper, [line.first_sequence for line in store.lines(0)])
    keeper.close()
    store.close()


def sealed_of(hours: Hours) -> list[Sealed]:
    """Its chunks, as the fold ended them."""
    pairs = [pair for hour in hours.hours for pair in zip(hour.chunks, hour.headers, strict=True)]
    found = []
    for number, (chunk, header) in enumerate(pairs, start=1):
        applied = Applied(header.last_index, header.last_sequence, number, header.order_ms)
        found.append(
            Sealed(
                partition=0,
                first_sequence=header.first_sequence,
                last_sequence=header.last_sequence,
                first_index=header.first_index,
                last_index=header.last_index,
                rows=header.rows,
                number=number,
                header=chunk.header,
                sections=dict(chunk.sections),
                applied=encode_applied(0, applied),
            )
        )
    return found


def test_hours_whose_archives_are_pruned_are_of_no_matter(kept: _Kept, hours: Hours) -> None:
    """To questions and to a keeper, also after a restart: what there is begins with the first archive."""
    assert len(kept.demote()) == len(hours.hours) - 1
    assert kept.seen() == kept.firsts
    kept.prune(2)
    assert kept.seen() == kept.firsts[2:]
    assert kept.demote() == []
    kept.store.flush()
    again = HotStore.open_read_only(kept.store.folder)
    assert kept.seen(again) == kept.firsts[2:]
    again.close()


def test_what_stayed_hot_before_them_leaves_with_them(kept: _Kept, hours: Hours) -> None:
    """An hour that was read more than the next: alone it would stand before a gap."""
    kept.store.send_away(0, kept.firsts[1:2])
    kept.prune(2)
    assert kept.seen() == kept.firsts[2:]
    assert kept.demote() == [hour.period for hour in hours.hours if hour is not hours.hours[1]][:-1]
    assert kept.store.away(0).tolist() == kept.firsts[:-1]
    assert kept.seen() == kept.firsts[2:]


def test_what_is_pruned_and_hot_is_seen_until_it_leaves(kept: _Kept, hours: Hours) -> None:
    """All of it follows one another."""
    kept.prune(2)
    assert kept.seen() == kept.firsts
    assert len(kept.demote()) == len(hours.hours) - 1
    assert kept.seen() == kept.firsts[2:]


def test_a_chunk_leaves_only_where_its_archive_has_it(kept: _Kept) -> None:
    """A later one is no proof."""
    archives = kept.keeper.archives

    def lacking(partition: int, first_sequence: int, most: int) -> list[Header]:
        found = type(archives).headers(archives, partition, first_sequence, most + 1)
        return [header for header in found if header.first_sequence != kept.firsts[1]][:most]

    archives.headers = lacking  # type: ignore[method-assign]
    with pytest.raises(DriftledgerError, match=f"the chunk at sequence 0:{kept.firsts[1]} is in no archive"):
        kept.demote()
    assert kept.store.away(0).tolist() == kept.firsts[:1]
