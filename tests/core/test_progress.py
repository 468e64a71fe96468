"""What a partition of the progress topic says, read whole and read on; and records of it as rows of pointers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

from schemas.codec import encode
from schemas.errors import HaltCode
from schemas.memory import bytes_at
from streams.librdkafka import W_KEY, W_KEY_LENGTH, W_VALUE, W_VALUE_LENGTH
from streams.locks import Lock, LockChange, message_of
from streams.log import Bounds
from streams.outbox import byte_rows
from streams.progress import LaneNotes, read_lane

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streams.log import Log

WHOLE = Lock(3, None, ("sequence", "put"), 9, 0, -40, "ada", "it is set")
PUMP = WHOLE._replace(scope="a/b", halts=("put",), index=10)
HALT = {"partition": 3, "code": "INPUT_CUT", "detail": "d", "remedy": "r", "halted_at": 5, "worker": "w"}


class _Message(NamedTuple):
    at: int
    its_key: bytes
    its_value: bytes | None

    def offset(self) -> int:
        """Where it stands."""
        return self.at

    def key(self) -> bytes:
        """As written."""
        return self.its_key

    def value(self) -> bytes | None:
        """As written."""
        return self.its_value


class Records:
    """A partition that is appended to; how many records were read."""

    def __init__(self) -> None:
        self.records: list[tuple[bytes, bytes | None]] = []
        self.read = 0

    def bounds(self, _topic: str, _partition: int) -> Bounds:
        """All of it is committed."""
        return Bounds(0, len(self.records), len(self.records))

    def scan(self, _topic: str, _partition: int, begin: int, end: int) -> Iterator[_Message]:
        """As Log does."""
        for offset in range(begin, end):
            self.read += 1
            yield _Message(offset, *self.records[offset])


def test_locks_stand_beside_halts_and_progress_until_they_are_released() -> None:
    """The last record of each key; a source may have any name."""
    log = Records()
    log.records = [
        message_of(LockChange(3, None, WHOLE)),
        (b"halt/3", encode("Halt", HALT)),
        message_of(LockChange(3, "a/b", PUMP)),
        (b"lock/4", b"no lock"),
    ]
    state = read_lane(cast("Log", log), "progress", 0)
    assert state.locks == [WHOLE, PUMP]
    assert state.halts[3].code is HaltCode.INPUT_CUT
    log.records.append(message_of(LockChange(3, None, None)))
    assert read_lane(cast("Log", log), "progress", 0).locks == [PUMP]


def test_a_partition_is_read_on_and_not_again() -> None:
    """But for one that was made anew, which is read from its beginning."""
    log, notes = Records(), LaneNotes("progress", 0)
    log.records = [message_of(LockChange(3, None, WHOLE)), message_of(LockChange(3, "a/b", PUMP))]
    assert notes.read(cast("Log", log)).locks == [WHOLE, PUMP]
    log.records.append(message_of(LockChange(3, None, None)))
    assert notes.read(cast("Log", log)).locks == [PUMP]
    assert notes.read(cast("Log", log)).locks == [PUMP]
    assert log.read == 3
    log.records = [message_of(LockChange(3, None, WHOLE))]
    assert notes.read(cast("Log", log)).locks == [WHOLE]


def test_a_null_value_is_a_row_without_a_pointer() -> None:
    """And an empty one has a pointer and no length: only the first deletes what its key said."""
    records: list[tuple[bytes | None, bytes | None]] = [(b"k", None), (None, b"v"), (b"key", b"")]
    rows = byte_rows(5, records)
    found: list[Any] = []
    for row in rows.rows.tolist():
        key, value = row[W_KEY], row[W_VALUE]
        found.append(
            (
                bytes_at(key, row[W_KEY_LENGTH]) if key else None,
                bytes_at(value, row[W_VALUE_LENGTH]) if value else None,
            )
        )
    assert found == records
