"""Answers as Arrow streams: parts, and in a last batch how they were found.

An Arrow stream ends with a batch of no rows whose metadata under ENDING is JSON:

    {"explain": {...}, "more": false, "partitions": [0, 1]}

more: the limit cut it. partitions: those that were asked.
"""

from __future__ import annotations

import io
from typing import Any, Final, NamedTuple

import orjson
import pyarrow as pa

from schemas.errors import UnreachableError

ENDING: Final = b"driftledger"
_EARLY: Final = "the answer ends early: the worker has gone, or a lane. Ask again"


class Ending(NamedTuple):
    """What is known at the end of an answer; explain: of `planner.Explain`, by name."""

    explain: dict[str, Any]
    more: bool
    partitions: tuple[int, ...]


class Part(NamedTuple):
    """A part of an answer; the last one has the ending."""

    table: pa.Table
    ending: Ending | None


class ArrowWriter:
    """Parts as an Arrow stream."""

    def __init__(self) -> None:
        self._sink = io.BytesIO()
        self._stream: Any = None

    def write(self, part: Part) -> bytes:
        """What a part adds to the stream; the last one ends it."""
        if self._stream is None:
            self._stream = pa.ipc.new_stream(self._sink, part.table.schema)
        self._stream.write_table(part.table)
        if part.ending is not None:
            ending = {ENDING: orjson.dumps(part.ending._asdict())}
            empty = [pa.array([], field.type) for field in part.table.schema]
            nothing = pa.RecordBatch.from_arrays(empty, schema=part.table.schema)
            self._stream.write_batch(nothing, custom_metadata=ending)
            self._stream.close()
        content = self._sink.getvalue()
        self._sink.seek(0)
        self._sink.truncate()
        return content


def read_arrow(content: Any) -> tuple[pa.Table, Ending]:
    """What was written. Raises UnreachableError where the end of it is missing."""
    table, ending = read_part(content)
    if ending is None:
        raise UnreachableError(_EARLY)
    return table, ending


def read_part(content: Any, bytes_max: int | None = None) -> tuple[pa.Table, Ending | None]:
    """The first batches of what was written, until there are so many bytes of them; without its end then.

    Raises UnreachableError where it ends before.
    """
    batches: list[pa.RecordBatch] = []
    ending: Ending | None = None
    try:
        with pa.ipc.open_stream(content) as stream:
            while bytes_max is None or sum(batch.nbytes for batch in batches) < bytes_max:
                batch, metadata = stream.read_next_batch_with_custom_metadata()
                batches.append(batch)
                if metadata is not None and ENDING in metadata:
                    found = Ending(**orjson.loads(metadata[ENDING]))
                    ending = found._replace(partitions=tuple(found.partitions))
    except StopIteration:
        if ending is None:
            raise UnreachableError(_EARLY) from None
    except (pa.ArrowException, OSError) as error:
        raise UnreachableError(f"the answer cannot be read ({error}). Ask again") from error
    return pa.Table.from_batches(batches).unify_dictionaries(), ending
