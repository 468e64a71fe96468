"""What happens to each partition of a lane when it is opened, once earlier owners are fenced.

    admit   check what is there (admission.py); where the ledger is empty, have it begun
    folds   restore the folds and bring them level (restore.py); have the ledger told of them (fold_opening.py)

Nothing of it is in a transaction but what the folds still have to say; the lane writes that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from schemas.errors import DriftledgerError, HaltCode, HaltError
from streams.admission import SECOND_WRITER_REMEDY, admit
from streams.fold import FoldError
from streams.fold_opening import check_progress, coming_of, fold_failed, untold
from streams.lane_part import Part
from streams.log import wait_stable
from streams.progress import produce_durably
from streams.restore import bring_level, entries_between

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator

    from schemas.columns import Entries
    from schemas.topics import TopicNames
    from streams.admission import Deployment
    from streams.cuts import Cut
    from streams.fold_progress import Standing
    from streams.folds import Configured, States
    from streams.ledger_reader import Tail
    from streams.log import Log
    from streams.restore import Read, Speak
    from streams.settings import Settings
    from streams.snapshots import Packed


def wait_for_markers(log: Log, names: TopicNames, lane: int, partitions: list[int], timeout_ms: int) -> None:
    """An earlier owner's transaction has been ended by the fence; its markers may still be on their way.

    Raises HaltError where a transaction stays open for longer.
    """
    outputs = [(topic, p) for p in partitions for topic in names.outputs]
    for topic, partition in [(names.progress, lane), *outputs]:
        if not wait_stable(log, topic, partition, timeout_ms):
            detail = f"a foreign transaction stays open on {topic}[{partition}]"
            halted = partitions[0] if topic == names.progress else partition  # without progress none opens, one by one
            raise HaltError(halted, HaltCode.SECOND_WRITER, detail, SECOND_WRITER_REMEDY)


@dataclass(frozen=True, slots=True)
class Opening:
    """One opening of a lane. standing, snapshots: as they were found; abandoned: set where it is to be given up."""

    settings: Settings
    bootstrap: str
    names: TopicNames
    lane: int
    worker: str
    log: Log
    standing: Standing
    snapshots: list[Packed]
    abandoned: threading.Event

    def admit(self, partition: int, now: Deployment, cut: Cut | None) -> tuple[Part, Tail | None]:
        """The partition as it stands, and the tail of its ledger, None where that is empty. Raises HaltError."""
        bound = self.standing.bound(partition)
        beyond = (s for s in self.snapshots if s.partition == partition and s.index > bound)
        known = next((s.index for s in beyond if s.is_whole()), bound)
        admitted = admit(
            self.log,
            self.names,
            partition,
            now,
            known_index=known,
            stable_timeout_ms=self.settings.transaction_timeout_ms,
            write_control=self._write_control,
            cut=cut,
        )
        part = Part(partition, admitted.head, admitted.resume_offset, admitted.leader_epoch)
        if admitted.tail is None:
            part.begins_with = admitted.head.control_offset + 1
        return part, admitted.tail

    def folds(self, configured: Configured, part: Part, tail: Tail | None, speak: Speak) -> list[Packed]:
        """Bring the folds level with the ledger: silently up to their progress, speaking from there.

        Returns the snapshots that they were restored from. Raises HaltError.
        """
        where = f"{self.names.progress}[{self.lane}]"
        tail_index = 0 if tail is None else tail.head.index
        check_progress(configured.folds, self.standing, where, part.number, tail_index, self.snapshots)
        read = self._reader(part.number, tail)
        try:
            level = bring_level(
                configured.folds, self.standing, part.number, part.head.index, self.snapshots, read, speak
            )
        except FoldError as error:
            raise fold_failed(part.number, error) from error
        part.states, part.snapshot_index = level.states, level.snapshot_index
        part.begins_with = self._tell(configured, part, part.states, begins=tail is None)
        return level.used

    def _tell(self, configured: Configured, part: Part, states: States, *, begins: bool) -> int:
        """Have a partition's ledger told of its folds, once: what was told before may still wait for its turn.

        While a lock keeps the input back, or is about to, nothing is defined: that is done when it is released, and the
        lane opens anew.

        Returns the control offset of the last record that says something of them, or of a lock; -1 where none waits.
        """
        end = self.log.bounds(self.names.control, part.number).stable_end
        coming = coming_of(self.log.scan(self.names.control, part.number, part.head.control_offset + 1, end))
        untold_of, locked = untold(states, configured, coming, begins=begins), coming.locked(states)
        missing = [told.encode(self.worker) for told in untold_of if not locked or told.kind == "FoldVersion"]
        return max([coming.end, *(self._write_control(part.number, value) for value in missing)])

    def _reader(self, partition: int, tail: Tail | None) -> Read:
        """Entries of a partition by index, as long as nobody wants this lane to end."""

        def read(first: int, last: int) -> Iterator[Entries]:
            if tail is None:
                return
            ledger = self.names.sequenced
            for entries in entries_between(self.log, self.bootstrap, ledger, partition, tail, first, last):
                if self.abandoned.is_set():
                    raise DriftledgerError(f"lane {self.lane} was told to end while it opened")
                yield entries

        return read

    def _write_control(self, partition: int, value: bytes) -> int:
        """Append to the control topic; returns the offset."""
        [(offset, _)] = produce_durably(self.bootstrap, self.names.control, partition, [(None, value)])
        return offset
