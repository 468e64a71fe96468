"""What a fold is: the pure part of a lane, one state for each ledger partition.

Problem: alerts, aggregates and stores must come out the same on replay, after any crash, in a simulation and on an
observer's machine. So everything that computes is a fold, everything that does I/O is not, and between the two stand
the rules below. Folds are judge, derive and the hot store (`lifecycle.store`); the latter two take what judge made of
the same entries, too.

    lane: sequence -> step -> begin, produce ledger entries and the fold's records, commit

    new_state(partition)    the state before the partition's first entry
    step(state, entries)    take the next entries, any number; the outputs hold the records for the topics
    dump(state)             its canonical bytes; compression is the snapshot's matter
    load(partition, bytes)  the state that was dumped

The rules, each with its reason:

- `step` is a deterministic function of (state, entries). No clock, file, setting or random number: what may influence
  it is an entry of the same partition, in order. Replay equals live.
- The same entries in other batches give the same records, verdicts and state, wherever the batches are cut. Nothing is
  flushed, counted or expired "per batch".
- `dump` is canonical: it depends on the entries alone, never on table sizes, growth, or whether the state was loaded
  before. So equal histories have equal snapshot hashes, and `load(partition, dump(state))` goes on exactly as state
  would have.
- State is changed in place and owned by one lane at a time; two partitions share nothing.
- Entries come in order of index from 1 without a gap, over the life of a state.

An exception from step leaves the state half changed: drop it and restore. FoldError halts the partition; it means
that going on would write verdicts nobody could recompute.

`version` says which rules wrote the outputs. A change of rules is a new version, sequenced as a FOLD_VERSION entry,
but for the store, which writes no records. It is VERSION in `judge_dump`, `derive_dump` and `lifecycle.store_dump`, for
a new layout of the dump is one, too. Whatever makes other records or another state of the same entries is a rule:
bounds and grids that are constants too, like the 100,000 late sources of `derive_kernel`.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from schemas.errors import DriftledgerError

if TYPE_CHECKING:
    from numpy.typing import NDArray


class FoldError(DriftledgerError):
    """A fold was given what it must not step over, or a dump that is not one of its own; the message has the remedy."""


class Target(enum.StrEnum):
    """The topic of a ledger that a record is for, by the last part of its name."""

    DRIFT_ALERTS = "drift.alerts"
    DEAD_LETTERS = "dead.letters"


class Record(NamedTuple):
    """One record for an output topic, in the partition of the entries.

    at_index: the entry that caused it; records stand in this order. It is not part of key or value.
    """

    target: Target
    at_index: int
    key: bytes | None
    value: bytes


class Messages(NamedTuple):
    """Records of one topic as columns of int64: where each key and value lies, and how long it is.

    at_index: the entry that caused it. keep: the memory they lie in.
    """

    at_index: NDArray[np.int64]
    key_address: NDArray[np.int64]
    key_length: NDArray[np.int64]
    value_address: NDArray[np.int64]
    value_length: NDArray[np.int64]
    keep: list[object]


NO_MESSAGES: Final = Messages(*(np.zeros(0, np.int64),) * 5, [])
