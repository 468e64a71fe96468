"""When a fold's progress is written, and what it says."""

from __future__ import annotations

import pytest

from streams.fold_progress import BOUND_INTERVAL_NS, NO_PROGRESS, FoldProgress, Standing


def fold(version: int, inline: set[int], **indexes: int) -> FoldProgress:
    """Progress of partitions given as p0=5."""
    return FoldProgress(version, {int(name[1:]): index for name, index in indexes.items()}, frozenset(inline))


@pytest.mark.parametrize(
    ("progress", "tail", "done"),
    [
        (NO_PROGRESS, 9, 0),
        (fold(1, set(), p0=5), 9, 5),
        (fold(1, {0}, p0=5), 9, 9),
        (fold(1, {1}, p0=5, p1=7), 9, 5),
        (fold(1, set(), p0=12), 9, 9),
    ],
)
def test_a_fold_that_is_inline_is_at_the_tail(progress: FoldProgress, tail: int, done: int) -> None:
    """Others are where their index says, never beyond the tail."""
    assert progress.done(0, tail) == done


def test_a_new_fold_is_written_with_its_first_entries_and_then_as_a_bound() -> None:
    """Between the two nothing: the tail says it."""
    standing = Standing({})
    standing.begin({"judge": 1}, {0: 0})
    assert standing.to_write({0: 2}, 10) == {"judge": fold(1, {0}, p0=2)}
    assert standing.to_write({0: 7}, 11) == {}
    assert standing.to_write({0: 9}, 10 + BOUND_INTERVAL_NS) == {"judge": fold(1, {0}, p0=9)}


def test_the_first_entries_of_each_partition_are_said() -> None:
    """An index above 0 is what tells a lost ledger from a new one."""
    standing = Standing({})
    standing.begin({"judge": 1}, {0: 0, 4: 0})
    assert standing.to_write({0: 2, 4: 0}, 1)["judge"].indexes == {0: 2, 4: 0}
    assert standing.to_write({0: 5, 4: 2}, 2)["judge"].indexes == {0: 5, 4: 2}
    assert standing.bound(4) == 2


def test_an_owner_that_goes_on_as_before_says_nothing_at_once_but_the_bound() -> None:
    """The first transaction of an ownership writes a bound; nothing changed."""
    known = {"judge": fold(1, {0}, p0=2)}
    standing = Standing(known)
    assert standing.of("judge").done(0, 50) == 50
    standing.begin({"judge": 1}, {0: 50})
    assert standing.to_write({0: 60}, 5) == {"judge": fold(1, {0}, p0=60)}
    assert standing.to_write({0: 70}, 6) == {}


def test_a_fold_that_is_left_behind_keeps_its_index() -> None:
    """A lane without it writes where it stopped, so that it can be caught up."""
    standing = Standing({"judge": fold(1, {0}, p0=2)})
    standing.begin({}, {0: 50})
    assert standing.to_write({0: 60}, 5) == {"judge": fold(1, set(), p0=50)}
    again = Standing({"judge": fold(1, set(), p0=50)})
    assert again.of("judge").done(0, 90) == 50
    assert again.catch_up("judge", 1, 0, 70) == {"judge": fold(1, set(), p0=70)}
    again.begin({"judge": 1}, {0: 90})
    assert again.to_write({0: 95}, 5) == {"judge": fold(1, {0}, p0=95)}


def test_a_new_version_begins_when_the_fold_is_level() -> None:
    """While it catches up the record keeps the old one, so that a crash does not lose the change."""
    standing = Standing({"judge": fold(1, set(), p0=5)})
    assert standing.catch_up("judge", 2, 0, 8) == {"judge": fold(1, set(), p0=8)}
    standing.begin({"judge": 2}, {0: 8})
    assert standing.to_write({0: 9}, 1) == {"judge": fold(2, {0}, p0=9)}
    assert Standing({}).catch_up("new", 3, 0, 1) == {"new": fold(3, set(), p0=1)}


def test_a_halted_partition_keeps_what_is_known_of_it() -> None:
    """Its tail does not move, so inline stays true of it."""
    standing = Standing({"judge": fold(1, {0, 4}, p0=5, p4=7)})
    standing.begin({"judge": 1}, {0: 9})
    said = standing.to_write({0: 10}, 1)["judge"]
    assert (said.indexes, said.inline) == ({0: 10, 4: 7}, frozenset({0, 4}))
    standing.begin({}, {0: 10})
    assert standing.to_write({0: 11}, 2)["judge"].inline == {4}


def test_folds_of_a_lane_are_behind_each_by_itself() -> None:
    """One that is new to a ledger has it all before it, and what is said of the other stays as it is."""
    standing = Standing({"judge": fold(1, {0}, p0=40)})
    assert (standing.of("judge").done(0, 90), standing.of("derive").done(0, 90)) == (90, 0)
    assert standing.catch_up("derive", 1, 0, 60) == {"derive": fold(1, set(), p0=60)}
    assert standing.of("judge") == fold(1, {0}, p0=40)
    standing.begin({"judge": 1, "derive": 1}, {0: 90})
    assert standing.to_write({0: 95}, 5) == {"judge": fold(1, {0}, p0=95), "derive": fold(1, {0}, p0=95)}
    assert standing.to_write({0: 99}, 6) == {}
