"""Pages of the drift log and of warnings as Arrow, with the names that the lists of `driftledger drift` have.

drift log   partition, index, sequence, created_at, anchor_timestamp, drift_delta_ms, severity, cause, offset_ms,
            bound_ms, source, reading, phase_lock_hash
warnings    partition, index, sequence, authority_timestamp, local_timestamp, drift_delta_ms, cause, offset_ms,
            bound_ms, source, event_id
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from lifecycle.arrow import AUTHORITY, LOCAL, causes, dictionary, named, plain, texts
from lifecycle.arrow_stream import Ending, Part
from lifecycle.chunks import HASH_BYTES, ReadingCode
from lifecycle.drift_rows import DATA
from streams.drift_entries import Reading
from streams.severity import Severity

if TYPE_CHECKING:
    from lifecycle.drift_question import DriftQuestion
    from lifecycle.drift_rows import DriftPage

_READINGS: Final = {
    DATA: Reading.DATA,
    ReadingCode.ANCHOR: Reading.ANCHOR,
    ReadingCode.VERIFY: Reading.VERIFY,
    ReadingCode.LOCK: Reading.LOCK,
    ReadingCode.RELEASE: Reading.RELEASE,
}


def part_of(asked: DriftQuestion, page: DriftPage) -> Part:
    """A page as an answer of one part. Its ending's explain says reached and head, too."""
    explain = asdict(page.explain) | {"reached": page.reached, "head": page.head}
    return Part(table_of(asked, page), Ending(explain, page.more, (asked.partition,)))


def table_of(asked: DriftQuestion, page: DriftPage) -> pa.Table:
    """A row each."""
    rows = page.index.size
    arrays: dict[str, Any] = {
        "partition": plain(pa.int32(), np.full(rows, asked.partition, np.int32), None),
        "index": plain(pa.int64(), page.index, None),
        "sequence": plain(pa.int64(), page.sequence, None),
    }
    authority, asserted = plain(AUTHORITY, page.authority_ms, None), plain(LOCAL, page.asserted_us, None)
    source = named(page.source, page.names, None)
    known = page.bound_ms >= 0
    valid = None if known.all() else known
    verdict = {
        "cause": causes(page.cause),
        "offset_ms": plain(pa.int64(), page.offset_ms, valid),
        "bound_ms": plain(pa.int64(), page.bound_ms, valid),
    }
    if asked.warned:
        return pa.table(
            arrays
            | {
                "authority_timestamp": authority,
                "local_timestamp": asserted,
                "drift_delta_ms": plain(pa.int64(), page.delta_ms, None),
                **verdict,
                "source": source,
                "event_id": texts(pa.string(), page.event_id, None),
            }
        )
    anchors = page.reading == ReadingCode.ANCHOR
    readings = [_READINGS[code].encode() for code in sorted(_READINGS)]
    return pa.table(
        arrays
        | {
            "created_at": authority,
            "anchor_timestamp": asserted,
            "drift_delta_ms": plain(pa.int64(), page.delta_ms, ~anchors if anchors.any() else None),
            "severity": dictionary(page.severity, [severity.name.encode() for severity in Severity], None),
            **verdict,
            "source": source,
            "reading": dictionary(page.reading, readings, None),
            "phase_lock_hash": plain(pa.binary(HASH_BYTES), page.chain_hash, None),
        }
    )
