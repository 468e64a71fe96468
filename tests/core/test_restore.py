"""Folds brought level: wherever each stood and whatever is left to begin with, all is said once and nothing twice."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from structlog.testing import capture_logs

from schemas.columns import slice_rows
from schemas.memory import bytes_at
from streams.derive import Derive
from streams.fold_progress import FoldProgress, Standing
from streams.folds import FOLDS, Folds, States, Stepped
from streams.judge import Judge
from streams.restore import bring_level, restore
from streams.snapshots import Packed, Snapshot, pack
from streams.windows import By, Frame, Kind, Late, WindowDefinition
from tests.core.derive_histories import history
from tests.core.judge_oracle import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from schemas.columns import Entries

PARTITION = 3
ENTRIES = 500
WINDOWS = (
    WindowDefinition("a", 1_000_000, Kind.HOPPING, slide_us=400_000, late=Late.UPDATE, early_us=500_000),
    WindowDefinition("b", 700_000, by=By.ALL, late=Late.SIDE),
    WindowDefinition("c", 900_000, frame=Frame.AUTHORITY),
)


class Said(NamedTuple):
    """Outputs with the index of the entry that caused each, in the order in which they were said."""

    judged: list[tuple[int, bytes]]
    aggregates: list[tuple[int, bytes, bytes]]
    letters: list[tuple[int, bytes]]

    def add(self, stepped: Stepped) -> None:
        """What a step said."""
        if stepped.judged is not None:
            self.judged.extend((record.at_index, record.value) for record in stepped.judged.records)
        if stepped.derived is not None:
            columns = [column.tolist() for column in stepped.derived.aggregates[:5]]
            self.aggregates.extend(
                (at, bytes_at(key, key_length), bytes_at(value, length))
                for at, key, key_length, value, length in zip(*columns, strict=True)
            )
            self.letters.extend((record.at_index, record.value) for record in stepped.derived.letters)

    def after(self, judge_done: int, derive_done: int) -> Said:
        """Without what is written already."""
        return Said(
            [said for said in self.judged if said[0] > judge_done],
            [said for said in self.aggregates if said[0] > derive_done],
            [said for said in self.letters if said[0] > derive_done],
        )


class Whole(NamedTuple):
    """A ledger, all that its folds say, and what they are after some entries."""

    ledger: Ledger
    said: Said
    dumps: dict[int, Mapping[str, bytes]]


@cache
def whole() -> Whole:
    """One batch an entry."""
    ledger = Ledger([step.row for step in history(random.Random(7), ENTRIES, windows=WINDOWS)])
    rng = random.Random(8)
    for row in range(ENTRIES):
        ledger.entries.chain_hash[row] = list(rng.randbytes(32))
    states, said, dumps = new_states(FOLDS), Said([], [], []), {}
    for index in range(1, ENTRIES + 1):
        said.add(Stepped(*FOLDS.step(states, slice_rows(ledger.entries, index - 1, index))))
        if index % 50 == 0:
            dumps[index] = FOLDS.dumps(states)
    assert len(said.judged) > 10
    assert len(said.aggregates) > 100
    assert len(said.letters) > 3
    return Whole(ledger, said, dumps)


def new_states(folds: Folds) -> States:
    """Before the first entry."""
    return States(folds.judge.new_state(PARTITION), folds.derive.new_state(PARTITION))


def reader(rng: random.Random) -> Any:
    """A ledger that is read in batches of any size."""

    def read(first: int, last: int) -> Iterator[Entries]:
        while first <= last:
            until = min(last, first + rng.choice((0, 1, 6, 99)))
            yield slice_rows(whole().ledger.entries, first - 1, until)
            first = until + 1

    return read


def snapshot(fold: str, index: int, **changes: Any) -> Packed:
    """The true one, or with something wrong about it."""
    fields: dict[str, Any] = {
        "fold": fold,
        "version": FOLDS.versions()[fold],
        "partition": PARTITION,
        "index": index,
        "chain_hash": whole().ledger.entries.chain_hash[index - 1].tobytes(),
        "state": whole().dumps[index][fold],
    }
    return pack(Snapshot(**{**fields, **changes}), 0)


def level(
    rng: random.Random, standing: Standing, snapshots: list[Packed], folds: Folds = FOLDS
) -> tuple[Mapping[str, bytes], Said, list[Mapping[str, FoldProgress]]]:
    """State, what was said on the way, and the progress that was written with it."""
    said = Said([], [], [])
    written: list[Mapping[str, FoldProgress]] = []

    def speak(stepped: Stepped, progress: Mapping[str, FoldProgress]) -> None:
        said.add(stepped)
        written.append(progress)

    found = bring_level(folds, standing, PARTITION, ENTRIES, snapshots, reader(rng), speak)
    return folds.dumps(found.states), said, written


def progress(index: int, *, version: int = 1, inline: bool = False) -> FoldProgress:
    """Of the one partition."""
    return FoldProgress(version, {PARTITION: index}, frozenset({PARTITION} if inline else ()))


@pytest.mark.parametrize("seed", range(40))
def test_each_fold_says_what_it_has_not_said(seed: int) -> None:
    """From any progress of each and any snapshots that may be there, useful or not."""
    rng = random.Random(seed)
    done = {fold: rng.choice((0, 1, 250, rng.randrange(ENTRIES + 1), ENTRIES)) for fold in FOLDS.versions()}
    standing = Standing({fold: progress(index, inline=index == ENTRIES) for fold, index in done.items() if index})
    wrong: list[dict[str, Any]] = [{"version": 9}, {"partition": 4}, {"chain_hash": bytes(32)}, {"state": b"damaged"}]
    kept = [
        snapshot(fold, index, **rng.choice([{}, {}, {}, *wrong]))
        for fold in done
        for index in rng.sample(sorted(whole().dumps), rng.randrange(4))
    ]
    kept.sort(key=lambda found: found.index, reverse=True)
    with capture_logs():
        dumps, said, written = level(rng, standing, kept)
    assert dumps == whole().dumps[ENTRIES]
    assert said == whole().said.after(done["judge"], done["derive"])
    for fold, index in done.items():
        indexes = [progress[fold].indexes[PARTITION] for progress in written if fold in progress]
        assert indexes == sorted(set(indexes))
        assert all(reached > index for reached in indexes)
    last: dict[str, list[tuple[Any, ...]]] = {
        "judge": [*said.judged[-1:]],
        "derive": [*said.aggregates[-1:], *said.letters[-1:]],
    }
    for fold, ends in last.items():
        reached = max((progress[fold].indexes[PARTITION] for progress in written if fold in progress), default=0)
        assert all(end[0] <= reached for end in ends)


class _Few(Derive):
    """Notes how many entries it is given; wants three at a time."""

    def rows_max(self, _state: Any) -> int:
        return 3

    def step(self, state: Any, entries: Entries, judged: Any) -> Any:
        assert entries.kind.size <= self.rows_max(state)
        return super().step(state, entries, judged)


def test_no_more_entries_are_stepped_at_once_than_derive_takes() -> None:
    """Whatever was read at once: the results of a step stand in memory and in one transaction."""
    dumps, said, _ = level(random.Random(3), Standing({}), [], Folds(Judge(), _Few()))
    assert dumps == whole().dumps[ENTRIES]
    assert said == whole().said


def test_a_snapshot_that_is_beyond_what_was_said_is_not_begun_with() -> None:
    """It would leave out what stands between the two."""
    standing = Standing({"judge": progress(120), "derive": progress(90)})
    kept = [snapshot(fold, index) for index in (150, 100, 50) for fold in ("judge", "derive")]
    _, said, _ = level(random.Random(1), standing, kept)
    assert said == whole().said.after(120, 90)


class _Steps:
    """Where folds began."""

    def __init__(self) -> None:
        self.judge: int | None = None
        self.derive: int | None = None

    def folds(self) -> Folds:
        """Folds that note it."""
        noted = self

        class NotedJudge(Judge):
            def step(self, state: Any, entries: Entries) -> Any:
                noted.judge = noted.judge or int(entries.index[0])
                return Judge.step(self, state, entries)

        class NotedDerive(Derive):
            def step(self, state: Any, entries: Entries, judged: Any) -> Any:
                noted.derive = noted.derive or int(entries.index[0])
                return Derive.step(self, state, entries, judged)

        return Folds(NotedJudge(), NotedDerive())


@pytest.mark.parametrize(
    ("of_judge", "of_derive", "begins"),
    [
        ((400, 350), (400, 350), (None, None)),
        ((400, 350), (350,), (351, 351)),
        ((400,), (350,), (1, 351)),
        ((400, 100), (), (1, 1)),
        ((), (350, 100), (1, 351)),
        ((50,), (350,), (51, 351)),
    ],
)
def test_as_little_is_read_again_as_the_snapshots_allow(
    of_judge: tuple[int, ...], of_derive: tuple[int, ...], begins: tuple[int | None, int | None]
) -> None:
    """Derive needs what judge says of the same entry, so judge begins with derive, or before."""
    standing = Standing({fold: progress(400, inline=True) for fold in ("judge", "derive")})
    kept = [snapshot("judge", index) for index in of_judge] + [snapshot("derive", index) for index in of_derive]
    steps = _Steps()

    def speak(*_: object) -> None:
        pytest.fail("both are level")

    found = bring_level(steps.folds(), standing, PARTITION, 400, kept, reader(random.Random(2)), speak)
    assert (steps.judge, steps.derive) == begins
    assert FOLDS.dumps(found.states) == whole().dumps[400]


@pytest.mark.parametrize(
    ("of_judge", "of_derive", "used", "index"),
    [
        ((400, 350), (400, 350), (400, 400), 400),
        ((400, 350), (350,), (350, 350), 350),
        ((350,), (400, 350), (350, 400), 350),
        ((400,), (350,), (None, 350), 0),
        ((400, 100), (), (None, None), 0),
        ((), (), (None, None), 0),
    ],
)
def test_what_was_restored_from_is_told(
    of_judge: tuple[int, ...], of_derive: tuple[int, ...], used: tuple[int | None, int | None], index: int
) -> None:
    """A partition has snapshots up to where each of its folds has one that could be used."""
    standing = Standing({fold: progress(400, inline=True) for fold in ("judge", "derive")})
    kept = [snapshot("judge", at) for at in of_judge] + [snapshot("derive", at) for at in of_derive]
    found = bring_level(FOLDS, standing, PARTITION, 400, kept, reader(random.Random(2)), lambda *_: None)
    told = (found.judge_from, found.derive_from)
    assert tuple(None if packed is None else packed.index for packed in told) == used
    assert found.used == [packed for packed in told if packed is not None]
    assert found.snapshot_index == index


@pytest.mark.parametrize(("damaged", "used", "logged"), [(200, 250, []), (250, 200, [250])])
def test_an_older_snapshot_is_unpacked_where_the_newer_cannot_be_used(
    damaged: int, used: int, logged: list[int]
) -> None:
    """Not before: what is wrong with it shows in no log."""
    kept = [snapshot("judge", index) for index in (250, 200)]
    kept = [replace(packed, chunks=[b"no frame"]) if packed.index == damaged else packed for packed in kept]
    steps = _Steps()
    with capture_logs() as lines:
        state = restore(steps.folds().judge, PARTITION, kept, 300, reader(random.Random(5)))
    assert FOLDS.judge.dump(state) == whole().dumps[300]["judge"]
    assert steps.judge == used + 1
    assert [line["index"] for line in lines] == logged


def test_judge_alone_is_restored_to_an_index() -> None:
    """For those who read the ledger."""
    kept = [snapshot("judge", 300), snapshot("judge", 200), snapshot("derive", 250)]
    state = restore(FOLDS.judge, PARTITION, kept, 250, reader(random.Random(3)))
    assert FOLDS.judge.dump(state) == whole().dumps[250]["judge"]


def test_a_new_version_takes_no_snapshot_of_the_old_and_says_nothing_again() -> None:
    """Only where it is behind, and under the old version until it is level."""

    class Second(Derive):
        @property
        def version(self) -> int:
            return 2

    folds = Folds(Judge(), Second())
    standing = Standing({"judge": progress(400, inline=True), "derive": progress(430)})
    kept = [snapshot("derive", 400), snapshot("judge", 400)]
    _, said, written = level(random.Random(4), standing, kept, folds)
    assert said == whole().said.after(ENTRIES, 430)
    assert {fold: found.version for progress in written for fold, found in progress.items()} == {"derive": 1}
