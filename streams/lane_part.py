"""What a lane knows of one of its partitions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from streams.locks import keeps_input

if TYPE_CHECKING:
    from streams.folds import States
    from streams.sequence import Head

#: The slot of a partition whose input is not read.
NOT_READ: Final = -1


@dataclass(slots=True)
class Part:
    """One partition of a lane; slot is its place in a fetched batch, NOT_READ while it is locked."""

    number: int
    head: Head
    position: int
    #: Of the last input record in the ledger, -1 unknown: the broker is asked whether its log still agrees.
    leader_epoch: int
    slot: int = NOT_READ
    states: States | None = None
    #: Index of the ledger entry after which the last snapshots stand, 0 where a fold has none.
    snapshot_index: int = 0
    #: Control offset that must be in the ledger before any data is taken: of GENESIS, or where there are folds, of the
    #: last record that tells of one, or of a lock.
    begins_with: int = -1

    @property
    def begun(self) -> bool:
        """Whether all of that is there."""
        return self.head.control_offset >= self.begins_with

    @property
    def locked(self) -> bool:
        """Whether a lock keeps its input back."""
        return self.states is not None and keeps_input(self.states.judge.locks)
