"""A lane without Kafka: what is sent is judged, shown and kept hot by the code that a worker runs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lifecycle.chunks import NOTHING
from lifecycle.hot_tier import HotTier, Standing
from lifecycle.owned import OwnedLane
from lifecycle.store import Filling, StoreState
from schemas.topics import topic_names
from streams.alert_record import AlertRecord
from streams.alert_shelf import AlertShelf
from streams.alert_watch import Alerts
from streams.fold import Target
from streams.judge import Judge
from tests.core.judge_oracle import Ledger, Row, event

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from schemas.columns import Entries
    from streams.judge import JudgeState, Outputs
    from streams.live_boards import LiveBoards

#: Nobody listens there.
NOWHERE = "127.0.0.1:1"


class Sent(NamedTuple):
    """An event: of whom, by how much its clock is off, and when the broker appended it."""

    source: str
    offset_us: int
    authority_ms: int


@dataclass
class Part:
    """A partition; alive: what its last entries point into."""

    state: JudgeState
    index: int = 0
    sequence: int = 0
    alive: object = None


class ShelfOfRecords:
    """What follows the alerts topic, where judge's records are handed to it."""

    def __init__(self) -> None:
        self.shelf = AlertShelf()
        self.now = Alerts()
        self.on_news: Callable[[], None] = lambda: None
        self.started = 0

    def start(self) -> None:
        """It is watched."""
        self.started += 1
        self.now = Alerts(self.shelf.copy())

    def stop(self) -> None:
        """Nobody watches."""
        self.now = Alerts()

    def apply(self, partition: int, value: bytes, recorded_at_ms: int) -> None:
        """A record of the topic."""
        self.shelf.apply(AlertRecord(recorded_at_ms, partition, 0, json.loads(value)))
        if self.now.shelf is not None:
            self.now = Alerts(self.shelf.copy())
            self.on_news()


class LevelTier(HotTier):
    """A hot tier that is level from the beginning: what is before its first entry is nothing, so nobody reads it."""

    def _begin(self, part: Any) -> None:
        self._held.compared(self._held.opened(), part.number)
        filling = Filling(NOTHING)
        part.standing, part.state = Standing.LEVEL, StoreState(part.number, NOTHING, 0, filling, filling.view())


class LiveLane:
    """Partitions 0 to count - 1. folder: where they are kept hot; None for nowhere."""

    def __init__(self, count: int, boards: LiveBoards, folder: Path | None = None) -> None:
        self.judge = Judge()
        self.parts = [Part(self.judge.new_state(number)) for number in range(count)]
        self.alerts = ShelfOfRecords()
        self._boards = boards
        self._ids = 0
        self.tier: HotTier | None = None
        if folder is not None:
            self.tier = LevelTier(folder, NOWHERE, topic_names("t", "main", "t.input"), 0)
            self.tier.open(dict.fromkeys(range(count), 0))

    def send(self, partition: int, events: Sequence[Sent]) -> Outputs:
        """Have one batch of a partition judged and committed."""
        rows = []
        for one in events:
            self._ids += 1
            rows.append(
                Row(event(one.source, f"e{self._ids}", one.authority_ms * 1_000 + one.offset_us), one.authority_ms)
            )
        return self.take(partition, rows)

    def take(self, partition: int, rows: Sequence[Row]) -> Outputs:
        """Have entries of any sort judged and committed."""
        part = self.parts[partition]
        ledger = Ledger(rows)
        entries: Entries = ledger.entries
        entries.index[:] += part.index
        entries.sequence[:] += part.sequence
        entries.chain_hash[:] = np.random.default_rng(part.index).integers(0, 256, entries.chain_hash.shape)
        if self.tier is not None:
            self.tier.settle({number: one.index for number, one in enumerate(self.parts)})
        judged = self.judge.step(part.state, entries)
        if self.tier is not None:
            self.tier.step(partition, entries, judged)
        if self._boards.watched:
            self._boards.step(partition, part.state, entries, judged)
        part.index, part.sequence = int(entries.index[-1]), int(entries.sequence[-1])
        part.alive = ledger
        if self.tier is not None:
            self.tier.commit()
        self.show()
        for _, value in judged.messages(Target.DRIFT_ALERTS):
            self.alerts.apply(partition, value, int(entries.authority_ms[-1]))
        return judged

    def show(self) -> None:
        """What a lane does between two batches."""
        if self._boards.watched:
            for number, part in enumerate(self.parts):
                self._boards.commit(number, part.state, part.index)

    def owned(self) -> list[OwnedLane]:
        """As questions to a worker need it."""
        heads = {number: part.index for number, part in enumerate(self.parts)}
        return [OwnedLane(tuple(heads), heads, self.tier, "kept nowhere")]

    def status(self, **facts: Any) -> dict[str, Any]:
        """As the worker's."""
        rows = [
            {
                "partition": number, "lane": 0, "state": "live", "sequence": part.sequence, "index": part.index,
                "input_position": part.sequence, "input_lag": 0, "hot": "level", "hot_error": None, "windows": 2,
                "suspended": None,
                "locked": None,
            }
            for number, part in enumerate(self.parts)
        ]  # fmt: skip
        head = {"worker": "host-1", "healthy": True, "halted": 0, "served": len(rows), "partitions": len(rows)}
        lanes = [{"lane": 0, "state": "live", "error": None}]
        return {**head, "broker": "answers", "member": True, "lanes": lanes, "halts": [], "rows": rows, **facts}

    def close(self) -> None:
        """End the store."""
        if self.tier is not None:
            self.tier.close()
