"""How many bytes an Arrow stream holds once its buffers are not compressed, told before one of them is decompressed.

Problem: buffers of an IPC stream may be compressed, and a few KB of them become gigabytes where nobody looks first.
pyarrow decompresses what it reads and does not say how much that will be. But each compressed buffer begins with its
length (i64, little-endian, -1: not compressed after all), and is refused by pyarrow where it holds more.

How: the metadata of a message is a flatbuffer, which pyarrow verifies when it opens the message; what is needed of it
are three tables of format/Message.fbs, walked by hand:

    Message       1 type of the header (2 DictionaryBatch, 3 RecordBatch)   2 header
    Dictionary    1 its RecordBatch
    RecordBatch   2 buffers (offset i64, length i64, each)                  3 compression, left out where there is none
"""

from __future__ import annotations

import struct
from typing import Any, Final

import pyarrow as pa

from schemas.errors import BadInputError

_DICTIONARY, _RECORDS = 2, 3
_U16: Final = struct.Struct("<H")
_I32: Final = struct.Struct("<i")
_U32: Final = struct.Struct("<I")
_I64: Final = struct.Struct("<q")
_BUFFER: Final = struct.Struct("<qq")


def stream_bytes(body: bytes) -> int:
    """Of all buffers together. Raises BadInputError for what is no stream."""
    try:
        return sum(map(_message_bytes, pa.ipc.MessageReader.open_stream(body)))
    except (pa.ArrowException, OSError, struct.error, IndexError) as error:
        raise BadInputError(f"the body is not an Arrow stream: {error}") from None


def _message_bytes(message: Any) -> int:
    facts, body = memoryview(message.metadata), memoryview(message.body)
    root = _behind(facts, 0)
    kind, batch = facts[_field(facts, root, 1)], _behind(facts, _field(facts, root, 2))
    if kind not in (_DICTIONARY, _RECORDS):
        return 0
    if kind == _DICTIONARY:
        batch = _behind(facts, _field(facts, batch, 1))
    if not _field(facts, batch, 3):
        return len(body)
    buffers = _behind(facts, _field(facts, batch, 2))
    (count,) = _U32.unpack_from(facts, buffers)
    total = 0
    for offset, length in _BUFFER.iter_unpack(facts[buffers + 4 : buffers + 4 + count * _BUFFER.size]):
        if length:
            (plain,) = _I64.unpack_from(body, offset)
            total += max(plain, length)
    return total


def _field(facts: memoryview, table: int, number: int) -> int:
    """Where a field of a table stands, 0 where it is left out."""
    names = table - _I32.unpack_from(facts, table)[0]
    slot = 4 + 2 * number
    if slot >= _U16.unpack_from(facts, names)[0]:
        return 0
    offset: int = _U16.unpack_from(facts, names + slot)[0]
    return table + offset if offset else 0


def _behind(facts: memoryview, place: int) -> int:
    """Where the offset at a place leads."""
    return place + int(_U32.unpack_from(facts, place)[0])
