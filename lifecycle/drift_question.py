"""What is asked of the drift log or of the warnings of a partition, a page at a time (see `drift_rows`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from schemas.errors import BadInputError
from schemas.instants import INT64_MAX, INT64_MIN

#: Entries of a page unless asked otherwise, and at most: some five MB.
PAGE_ENTRIES: Final = 65_536


@dataclass(frozen=True, slots=True)
class DriftQuestion:
    """Which entries of a partition. Raises BadInputError for a page that is none.

    warned: warnings, else the drift log. first_ms, last_ms: authority time; first, last: sequences; both inclusive.
    after, before: indexes, exclusive. newest: the last ones, else the first.
    """

    partition: int
    warned: bool = False
    source: bytes | None = None
    first_ms: int = INT64_MIN
    last_ms: int = INT64_MAX
    first: int = 0
    last: int = INT64_MAX
    after: int = 0
    before: int = INT64_MAX
    newest: bool = False
    limit: int = PAGE_ENTRIES

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= PAGE_ENTRIES:
            raise BadInputError(f"a page of {self.limit} entries cannot be. Ask for 1 to {PAGE_ENTRIES}")
