"""Results of windows as an Arrow stream: a table of any length in the memory of a part."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from lifecycle.arrow import LOCAL

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import BinaryIO

#: What a definition does not ask for is null. Fields whose names end in _us hold what the others spell as instants.
SCHEMA: Final = pa.schema(
    [
        pa.field("definition", pa.string(), nullable=False),
        pa.field("version", pa.int64(), nullable=False),
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("frame", pa.string(), nullable=False),
        pa.field("key", pa.string()),
        pa.field("window_start", LOCAL, nullable=False),
        pa.field("window_end", LOCAL, nullable=False),
        pa.field("revision", pa.int64(), nullable=False),
        pa.field("final", pa.bool_(), nullable=False),
        pa.field("at_index", pa.int64(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),
        pa.field("values", pa.int64(), nullable=False),
        pa.field("near_edge", pa.int64()),
        *(pa.field(name, pa.float64()) for name in ("sum", "min", "max", "mean", "variance", "first", "last")),
        pa.field("percentiles", pa.map_(pa.string(), pa.float64())),
        pa.field("method", pa.string()),
        pa.field("relative_error", pa.float64()),
    ]
)
_ROWS: Final = 8_192


def write_results(rows: Iterable[Mapping[str, Any]], target: BinaryIO) -> int:
    """Write rows of `aggregates.Result` as they come; returns how many there were."""
    count = 0
    with pa.ipc.new_stream(target, SCHEMA) as stream:
        source = iter(rows)
        while part := list(islice(source, _ROWS)):
            columns = {field.name: [_value(row, field.name) for row in part] for field in SCHEMA}
            stream.write_table(pa.table(columns, SCHEMA))
            count += len(part)
    target.flush()
    return count


def _value(row: Mapping[str, Any], name: str) -> Any:
    if name in ("window_start", "window_end"):
        return row[f"{name}_us"]
    if name == "percentiles":
        return None if row[name] is None else list(row[name].items())
    return row.get(name)
