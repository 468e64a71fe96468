"""Files made again of whatever still gives them: what is damaged in one place is asked of another, or is named."""

from __future__ import annotations

import re
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from lifecycle.chunks import Column
from lifecycle.hot_keys import section_key
from lifecycle.hot_store import HotStore
from lifecycle.restoring import Sources, UnrestorableError, held_chunks, make_again
from lifecycle.store import Store
from schemas.columns import slice_rows
from streams.judge import Judge
from streams.ledger_reader import Tail
from streams.sequence import Head
from tests.core.hours import over_hours
from tests.core.job_scenario import HOURS, LENGTH, SEED
from tests.core.test_job_steps import work_in
from tests.core.test_mending import archived, contents

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from schemas.columns import Entries
    from tests.core.hours import Hours


@pytest.fixture(scope="module")
def hours() -> Hours:
    """Some hours over midnight."""
    return over_hours(SEED, LENGTH, HOURS)


class _Stores:
    """A ledger that has everything, with a hot store or none. broken: indexes whose chain hash is another."""

    def __init__(self, hours: Hours, hot: HotStore | None = None, broken: range = range(0)) -> None:
        self._hours, self._hot, self._broken = hours, hot, broken

    def begins(self, _partition: int) -> int:
        """Nothing was cut."""
        return 1

    def newest(self, _partition: int, _tail: Tail) -> HotStore | None:
        """The one."""
        return self._hot

    def entries(self, _partition: int, _tail: Tail, first: int, last: int) -> Iterator[Entries]:
        """As a reader gives them."""
        for batch in self._hours.batches(first, 700):
            rows = int((batch.index <= last).sum())
            if rows:
                given = slice_rows(batch, 0, rows)
                hashes = given.chain_hash.copy()
                hashes[[index in self._broken for index in given.index.tolist()]] ^= 1
                yield given._replace(chain_hash=hashes)


def sources(hours: Hours, hot: HotStore | None = None, broken: range = range(0)) -> Sources:
    """Of a ledger, without snapshots."""
    stores: Any = _Stores(hours, hot, broken)
    return Sources(stores, lambda: Tail(Head(int(hours.entries.index[-1])), 0, 0), list)


def hot_store(folder: Path, hours: Hours) -> HotStore:
    """With all of it."""
    judge, fold = Judge(), Store()
    judged = judge.step(judge.new_state(hours.partition), hours.entries)
    store = HotStore.open(folder)
    store.write(fold.step(fold.new_state(hours.partition), hours.entries, judged))
    return store


def test_where_a_chunk_is_damaged_the_folds_are_asked(tmp_path: Path, hours: Hours) -> None:
    """The same file, and the log says why it took longer."""
    segment = archived(tmp_path, hours)[1]
    wanted, path = contents(tmp_path), tmp_path / "root" / segment.path
    with closing(hot_store(tmp_path / "store", hours)) as store:
        for damaged in range(2):
            path.unlink()
            assert held_chunks(store, segment.facts) is not None
            with capture_logs() as lines:
                make_again(work_in(tmp_path), segment, sources(hours, store))
            assert [line["event"] for line in lines] == ["hot_store_passed_over"] * damaged
            assert contents(tmp_path) == wanted
            key = section_key(hours.partition, segment.facts.first_sequence, Column.VALUE)
            store._database._rocks[key] = b"junk"


def test_where_the_ledger_is_broken_the_file_is_named(tmp_path: Path, hours: Hours) -> None:
    """And nothing is changed; another file is none the worse for it."""
    _, first, second = archived(tmp_path, hours)[:3]
    wanted = contents(tmp_path)
    for segment in (first, second):
        (tmp_path / "root" / segment.path).unlink()
    facts = first.facts
    broken = sources(hours, broken=range(facts.first_index + 9, facts.first_index + 10))
    with pytest.raises(UnrestorableError, match=f"{re.escape(first.path)}.*does not follow") as refused:
        make_again(work_in(tmp_path), first, broken)
    assert [segment for segment, _ in refused.value.lost] == [first]
    make_again(work_in(tmp_path), second, broken)
    missing = wanted.keys() - contents(tmp_path).keys()
    assert missing == {first.path}


def test_all_that_cannot_be_made_again_is_listed(tmp_path: Path, hours: Hours) -> None:
    """Each with its sequences and what is in the way."""
    _, *segments = archived(tmp_path, hours)
    told = str(UnrestorableError((segments[0], "it is cut"), (segments[1], "it is broken")))
    for segment, why in ((segments[0], "it is cut"), (segments[1], "it is broken")):
        facts = segment.facts
        assert (
            f"{segment.path}, which has sequences {facts.first_sequence} to {facts.last_sequence} of partition 3, "
            f"cannot be made again: {why}"
        ) in told
    assert told.endswith(". Put a good copy of each in its place")
