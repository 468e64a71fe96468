"""A definition run over history against the records that live wrote: byte for byte, however the entries are cut."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from schemas.memory import JIT
from streams.aggregates import LateCounts, Result, parse
from streams.derive import Derive
from streams.judge import Judge
from streams.window_history import LastRevisions, WindowHistory, values_of
from streams.windows import Kind
from tests.core.derive_histories import history, random_window
from tests.core.test_derive import PARTITION, every, ledger_of, ragged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streams.aggregates import AggregateRecord
    from streams.windows import WindowDefinition
    from tests.core.judge_oracle import Ledger

LENGTH = 1_500 if JIT else 400


def live(ledger: Ledger) -> list[AggregateRecord]:
    """What derive says with all definitions of the ledger."""
    judge, derive = Judge(), Derive()
    state, judged = derive.new_state(PARTITION), judge.new_state(PARTITION)
    found: list[AggregateRecord] = []
    for entries in ledger.batches(every(500)):
        derived = derive.step(state, entries, judge.step(judged, entries))
        found += [parse(value, 0, PARTITION, 0) for value in values_of(derived)]
    return found


def folded(
    ledger: Ledger, name: str, definition: WindowDefinition | None, sizes: Iterator[int]
) -> tuple[WindowHistory, list[AggregateRecord], list[Result]]:
    """A run over all of a ledger: its records, and the last revisions of them, settled ones first."""
    found, judge, last = WindowHistory(PARTITION, name, definition), Judge(), LastRevisions()
    judged = judge.new_state(PARTITION)
    records: list[AggregateRecord] = []
    given: list[Result] = []
    for entries in ledger.batches(sizes):
        more = found.take(entries, judge.step(judged, entries))
        records += more
        settled = last.take(more, found.standing)
        if definition is not None:
            assert all(one.final for one in settled)
        given += settled
    return found, records, given + last.rest()


@pytest.mark.parametrize("seed", range(6))
def test_as_live_every_record_is_lives(seed: int) -> None:
    """Of windows that come, change and go; of each by itself, in any batches."""
    ledger = ledger_of(history(random.Random(seed), LENGTH, sources=(1, 5, 40)[seed % 3]))
    wanted = live(ledger)
    assert {type(record) for record in wanted} >= {Result, LateCounts}
    for name in "abc":
        for sizes in (every(97), ragged(seed)):
            _, records, _ = folded(ledger, name, None, sizes)
            assert records == [one for one in wanted if one.definition == name]


@pytest.mark.parametrize("seed", range(12))
def test_a_definition_run_from_the_beginning_says_what_live_said(seed: int) -> None:
    """Live's was in force from the first entry; only the version is another."""
    rng = random.Random(seed)
    definition = random_window(rng, "w", (tuple(Kind)[seed % 3],))
    ledger = ledger_of(history(rng, LENGTH, windows=[definition]))
    wanted = [replace(record, version=0) for record in live(ledger)]
    for sizes in (every(113), ragged(seed)):
        found, records, _ = folded(ledger, "w", definition, sizes)
        assert records == wanted
        counted = [one for one in wanted if isinstance(one, LateCounts)]
        assert found.late >= sum(one.late for one in counted)
        assert found.ahead >= sum(one.ahead for one in counted)


@pytest.mark.parametrize("seed", range(8))
def test_a_definition_that_came_later_agrees_where_it_saw_all_of_a_window(seed: int) -> None:
    """Of windows that begin more than max_ahead after all that stands before its entry."""
    rng = random.Random(seed)
    definition = random_window(rng, "w", (tuple(Kind)[seed % 3],))
    before, after = (history(rng, LENGTH // 2, windows=windows) for windows in ([], [definition]))
    ledger = ledger_of([*before, *after])
    began_us = max(step.row.authority_ms for step in [*before, *after[:1]]) * 1_000
    first_us = began_us + definition.max_ahead_us

    def whole(records: list[AggregateRecord]) -> list[Result]:
        found = [one for one in records if isinstance(one, Result) and one.window_start_us > first_us]
        return [replace(one, version=0) for one in found]

    wanted = whole(live(ledger))
    _, records, _ = folded(ledger, "w", definition, every(113))
    assert whole(records) == wanted


@pytest.mark.parametrize("seed", range(6))
def test_last_revisions_stand_in_order_however_they_are_handed_in(seed: int) -> None:
    """Each window once, with the revision that live gave last."""
    rng = random.Random(seed)
    definition = random_window(rng, "w", (Kind.TUMBLING, Kind.HOPPING))
    ledger = ledger_of(history(rng, LENGTH, windows=[definition]))
    shown = []
    for sizes in (every(LENGTH), every(1), ragged(seed)):
        _, records, given = folded(ledger, "w", definition, sizes)
        last = {one.window: one for one in records if isinstance(one, Result)}
        assert {one.window: one for one in given} == last
        assert len(given) == len(last)
        shown.append(given)
    assert shown[0] == shown[1] == shown[2]
    ends = [(one.window_end_us, one.window_start_us, one.key or "") for one in shown[0]]
    assert ends == sorted(ends)


@pytest.mark.parametrize("seed", range(4))
def test_a_version_that_ends_gives_what_it_had_before_the_next(seed: int) -> None:
    """Also what would never close; in whatever batches."""
    ledger = ledger_of(history(random.Random(seed), LENGTH))
    for name in "abc":
        shown = [folded(ledger, name, None, sizes)[2] for sizes in (every(LENGTH), every(1), ragged(seed))]
        assert shown[0] == shown[1] == shown[2]
        versions = [one.version for one in shown[0]]
        assert versions == sorted(versions)
