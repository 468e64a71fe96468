"""Rows for the native producer: pointers to bytes that somebody keeps alive until the commit."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from schemas.memory import address_of
from streams.librdkafka import MESSAGE_WORDS, W_KEY, W_KEY_LENGTH, W_VALUE, W_VALUE_LENGTH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from streams.fold import Messages
    from streams.sequence import Sequenced


class Rows(NamedTuple):
    """int64[n, 9] of rd_kafka_message_t for one partition, and the memory they point into."""

    partition: int
    rows: NDArray[np.int64]
    memory: object


def ledger_rows(sequenced: Sequenced, partition: int) -> Rows:
    """One row for each new entry, under the key of its input record."""
    entries = sequenced.entries
    rows = np.zeros((entries.index.size, MESSAGE_WORDS), np.int64)
    rows[:, W_VALUE] = sequenced.starts[:-1] + address_of(sequenced.encoded)
    rows[:, W_VALUE_LENGTH] = np.diff(sequenced.starts)
    rows[:, W_KEY] = entries.key_address
    rows[:, W_KEY_LENGTH] = np.maximum(entries.key_length, 0)
    return Rows(partition, rows, sequenced.encoded)


def byte_rows(partition: int, records: Sequence[tuple[bytes | None, bytes | None]]) -> Rows:
    """One row for each (key, value)."""
    rows = np.zeros((len(records), MESSAGE_WORDS), np.int64)
    memory = np.frombuffer(b"".join((key or b"") + (value or b"") for key, value in records) + b"\0", np.uint8)
    at = address_of(memory)
    for row, (key, value) in enumerate(records):
        key_length, value_length = len(key or b""), len(value or b"")
        rows[row, W_KEY] = at if key is not None else 0
        rows[row, W_KEY_LENGTH] = key_length
        rows[row, W_VALUE] = at + key_length if value is not None else 0
        rows[row, W_VALUE_LENGTH] = value_length
        at += key_length + value_length
    return Rows(partition, rows, memory)


def message_rows(partition: int, messages: Messages) -> Rows:
    """One row for each record that a fold has laid out in memory."""
    rows = np.zeros((messages.at_index.size, MESSAGE_WORDS), np.int64)
    rows[:, W_KEY], rows[:, W_KEY_LENGTH] = messages.key_address, messages.key_length
    rows[:, W_VALUE], rows[:, W_VALUE_LENGTH] = messages.value_address, messages.value_length
    return Rows(partition, rows, messages.keep)
