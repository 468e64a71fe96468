"""Dead letters: an entry that something could not take, with its position, the reason and its original bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas.canonical import ValueState
from schemas.codec import encode
from schemas.memory import bytes_at
from streams.fold import Record, Target

if TYPE_CHECKING:
    from schemas.columns import Entries


def dead_letter(partition: int, entries: Entries, row: int, reason: str) -> Record:
    """Of a DATA entry, under its key. The value is null where the entry does not hold it."""
    length, key_length = int(entries.value_length[row]), int(entries.key_length[row])
    present = entries.value_state[row] == ValueState.PRESENT
    letter = {
        "partition": partition,
        "sequence": int(entries.sequence[row]),
        "input_offset": int(entries.input_offset[row]),
        "authority_timestamp": int(entries.authority_ms[row]),
        "reason": reason,
        "value_length": length,
        "value_hash": entries.value_hash[row].tobytes(),
        "value": bytes_at(int(entries.value_address[row]), length) if present else None,
    }
    key = bytes_at(int(entries.key_address[row]), key_length) if key_length >= 0 else None
    return Record(Target.DEAD_LETTERS, int(entries.index[row]), key, encode("DeadLetter", letter))
