"""What an Arrow stream comes to, without decompressing it: against pyarrow, which does."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import pyarrow as pa
import pytest

from schemas.errors import BadInputError
from streams.arrow_bytes import stream_bytes


def _stream(table: pa.Table, compression: str | None) -> bytes:
    sink = pa.BufferOutputStream()
    options: Any = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, table.schema, options=options) as stream:
        stream.write_table(table, max_chunksize=400)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _table(payload_bytes: int) -> pa.Table:
    noise = random.Random(0).randbytes(64)
    return pa.table(
        {
            "source": pa.array([f"pump-{number % 7}" for number in range(1_000)]).dictionary_encode(),
            "value": pa.array([None, *range(999)], pa.float64()),
            "payload": [noise, *(b"\0" * payload_bytes for _ in range(999))],
        }
    )


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_a_stream_tells_what_it_comes_to(compression: str | None) -> None:
    """Within what padding takes, however short it is itself."""
    table = _table(30_000)
    body = _stream(table, compression)
    plain = sum(buffer.size for column in table.select(["value", "payload"]).columns
                for chunk in column.chunks for buffer in chunk.buffers() if buffer is not None)  # fmt: skip
    assert plain <= stream_bytes(body) <= plain + 100_000
    assert compression is None or len(body) < plain // 50


def test_a_table_of_no_rows_comes_to_nothing() -> None:
    """Empty buffers have no length in front."""
    assert stream_bytes(_stream(_table(1).slice(0, 0), "zstd")) <= 1_000


def test_what_is_no_stream_is_refused() -> None:
    """Noise, and a stream of which any bytes are damaged, is refused or measured."""
    with pytest.raises(BadInputError, match="not an Arrow stream"):
        stream_bytes(b"noise")
    body, chance = _stream(_table(10), "lz4"), random.Random(1)
    for _ in range(300):
        damaged = bytearray(body)
        damaged[chance.randrange(len(body))] ^= 1 << chance.randrange(8)
        with contextlib.suppress(BadInputError):
            assert stream_bytes(bytes(damaged)) >= 0
