"""The store's state as bytes: it goes on from a dump as if there had been none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lifecycle import store_dump
from lifecycle.store import Store
from streams.fold import FoldError
from streams.judge import Judge
from tests.core.test_store import PARTITION, bits, every, heavy_ledger, long_ledger, unsealed_of

if TYPE_CHECKING:
    from tests.core.judge_oracle import Ledger


def check_dumps(ledger: Ledger, rows: int) -> int:
    """After every so many rows: chunks, unsealed rows and the next dump are equal to the bit. Returns the chunks."""
    judge, fold = Judge(), Store()
    judged, plain, again = judge.new_state(PARTITION), fold.new_state(PARTITION), fold.new_state(PARTITION)
    seen = 0
    for entries in ledger.batches(every(rows)):
        outputs = judge.step(judged, entries)
        expected = fold.step(plain, entries, outputs)
        assert fold.step(again, entries, outputs) == expected
        seen += len(expected)
        data = store_dump.dump(plain)
        assert store_dump.dump(again) == data
        again = store_dump.load(PARTITION, data)
        fold.publish(plain)
        assert bits(unsealed_of(again)) == bits(unsealed_of(plain))
    return seen


@pytest.mark.parametrize("seed", range(4))
def test_a_loaded_state_goes_on_as_the_dumped_one(seed: int) -> None:
    """At every batch."""
    assert check_dumps(long_ledger(seed, 3_000, jumps=0.01), 97) > 1


def test_a_loaded_state_knows_what_was_sent() -> None:
    """At every row: no column of a chunk has it, and it ends the chunk."""
    assert check_dumps(heavy_ledger(14, 100), 1) > 2


def test_damage_is_refused() -> None:
    """A dump of another partition, cut anywhere, longer, or with any byte changed."""
    ledger = long_ledger(7, 300, jumps=0.0)
    judge, fold = Judge(), Store()
    judged, state = judge.new_state(PARTITION), fold.new_state(PARTITION)
    for entries in ledger.batches(every(300)):
        fold.step(state, entries, judge.step(judged, entries))
    data = store_dump.dump(state)
    with pytest.raises(FoldError):
        store_dump.load(PARTITION + 1, data)
    for cut in range(0, len(data), 61):
        with pytest.raises(FoldError):
            store_dump.load(PARTITION, data[:cut])
    with pytest.raises(FoldError):
        store_dump.load(PARTITION, data + b"\0")
    for at in [*range(40), *range(40, len(data), 53)]:
        with pytest.raises(FoldError):
            store_dump.load(PARTITION, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
