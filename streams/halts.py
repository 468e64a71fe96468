"""Durable halts, read and lifted.

Problem: a partition that stopped stays stopped until somebody has acted, and who acted and why must be known later. So
lifting first writes an anchor with actor and reason to the partition's control topic, then removes the halt record: the
lane that goes on takes the anchor into the ledger, chained like every other entry.

HAZARD a partition whose ledger has not begun cannot hold that anchor; the halt is lifted all the same, and said so.
HAZARD a crash between the two leaves an anchor of a lift that did not happen: lift again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from schemas.errors import BadInputError
from schemas.instants import format_us
from streams.drift_log import DriftLog, NotBegunError
from streams.progress import lift_halt, read_lane

if TYPE_CHECKING:
    from streams.queries import Ledger


class Halt(NamedTuple):
    """A durable halt."""

    partition: int
    lane: int
    code: str
    halted_at_us: int
    detail: str
    remedy: str

    def row(self) -> dict[str, Any]:
        """For a listing."""
        return {**self._asdict(), "halted_at": format_us(self.halted_at_us)}


class Lifted(NamedTuple):
    """A halt that is no more. record: where the lift is documented, in words."""

    halt: Halt
    record: str


def read_halts(ledger: Ledger) -> list[Halt]:
    """The durable halts, by partition."""
    found = []
    for lane in range(ledger.lanes):
        state = read_lane(ledger.log, ledger.names.progress, lane)
        for partition, halt in state.halts.items():
            at_us = state.halted_at_us[partition]
            found.append(Halt(partition, lane, str(halt.code), at_us, halt.detail, halt.remedy))
    return sorted(found)


def lift_with_reason(ledger: Ledger, partition: int, *, actor: str, reason: str) -> Lifted:
    """Document and remove the halt of a partition. Raises BadInputError where it is not halted."""
    ledger.chosen(partition)
    halt = next((halt for halt in read_halts(ledger) if halt.partition == partition), None)
    if halt is None:
        raise BadInputError(f"partition {partition} is not halted: nothing was lifted. See `driftledger halts list`")
    text = f"halt {halt.code} lifted: {reason}"
    try:
        written = DriftLog(ledger).write_anchor(f"halt/{partition}", actor=actor, reason=text, partition=partition)
    except NotBegunError:
        record = f"the ledger of partition {partition} has not begun, so who lifted it and why is not recorded there"
    else:
        record = f"documented by the anchor {written}, which becomes an entry of partition {partition}"
    lift_halt(ledger.bootstrap, ledger.names.progress, halt.lane, partition)
    return Lifted(halt, record)
