"""What a fold is: the pure part of a lane, one state for each ledger partition.

Problem: alerts, aggregates and stores must come out the same on replay, after any crash, in a simulation and on an
observer's machine. So everything that computes is a fold, everything that does I/O is not, and between the two stands
this protocol.

    lane: sequence -> for each fold, in order: step -> begin, produce ledger entries and the folds' records, commit

The rules, each with its reason:

- `step` is a deterministic function of (state, entries). No clock, file, setting or random number: what may influence
  it is an entry of the same partition, in order. Replay equals live.
- The same entries in other batches give the same records, verdicts and state, wherever the batches are cut. Nothing is
  flushed, counted or expired "per batch".
- `dump` is canonical: it depends on the entries alone, never on table sizes, growth, or whether the state was loaded
  before. So equal histories have equal snapshot hashes, and `load(partition, dump(state))` goes on exactly as state
  would have.
- State is changed in place and owned by one lane at a time; two partitions share nothing.
- `events` has a row for each entry: what judge decoded. Judge itself, the first fold of a lane, is stepped without and
  hands them on in its outputs, because the framing of the input is an entry like any other. Addresses are valid while
  the batch and judge's outputs live.
- Entries come in order of index from 1 without a gap, over the life of a state.

An exception from step leaves the state half changed: drop it and restore. FoldError halts the partition; it means
that going on would write verdicts nobody could recompute.

`version` says which rules wrote the outputs. A change of rules is a new version, sequenced as a FOLD_VERSION entry.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from schemas.errors import DriftledgerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from schemas.columns import Entries, Events


class FoldError(DriftledgerError):
    """A fold was given what it must not step over, or a dump that is not one of its own; the message has the remedy."""


class Target(enum.StrEnum):
    """The topic of a ledger that a record is for, by the last part of its name."""

    DRIFT_ALERTS = "drift.alerts"
    DEAD_LETTERS = "dead.letters"


class Record(NamedTuple):
    """One record for an output topic, in the partition of the entries.

    at_index: the ledger entry that caused it, so that a lane which folds again what is already written can stay silent
    up to its progress. It is not part of key or value.
    """

    target: Target
    at_index: int
    key: bytes | None
    value: bytes


class FoldOutputs(Protocol):
    """What every fold's step returns, whatever else it returns."""

    @property
    def records(self) -> Sequence[Record]:
        """In order of index."""


State = TypeVar("State")
Outputs_co = TypeVar("Outputs_co", bound=FoldOutputs, covariant=True)


class Fold(Protocol[State, Outputs_co]):
    """See the module."""

    @property
    def name(self) -> str:
        """Of the fold, in progress records, snapshots and FOLD_VERSION entries."""

    @property
    def version(self) -> int:
        """Of its rules and of its dump."""

    def new_state(self, partition: int) -> State:
        """The state before the partition's first entry."""

    def step(self, state: State, entries: Entries, events: Events) -> Outputs_co:
        """Take the next entries; any number, none included."""

    def dump(self, state: State) -> bytes:
        """The canonical bytes of the state; compression is the snapshot's matter."""

    def load(self, partition: int, data: bytes) -> State:
        """The state that was dumped. Raises FoldError for bytes of another partition, version or length."""
