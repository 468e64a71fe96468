"""The jobs topic: what runs tell of themselves, and what workers are asked for, written and read.

GUARANTEE `write` returns once the broker has taken a record, with the broker's time of that.
HAZARD a record of nobody's, or of a release that says it otherwise, is logged and left out.
HAZARD whether a run is lost is told by this machine's clock in `history`, and by the broker's alone in `since`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

import structlog

from lifecycle.asks import ASK_KEY, AskError, AskHeard, decode_ask, encode_ask
from lifecycle.job_record import Heard, JobRecordError, decode, encode, folded, told
from schemas.clock import source as time_source
from schemas.instants import US_PER_MS
from streams.log import Log, offset_of
from streams.progress import produce_durably

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lifecycle.asks import Ask
    from lifecycle.job_record import Job

#: Records that are read back first, for the runs that are asked for; four times as many where that was too few.
_BACK: Final = 1_000
_GROWTH: Final = 4
_logger = structlog.get_logger()


class JobLog:
    """One ledger's. Raises UnreachableError. Not for two threads at once, but for `write`; also a context manager."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._bootstrap, self._topic = bootstrap, topic
        self._log = Log(bootstrap)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the clients."""
        self._log.close()

    def write(self, job: Job) -> Heard:
        """Append a record."""
        records = [(job.job.encode(), encode(job))]
        # not idempotent, which takes half a second: twice is as good as once
        [(offset, appended_ms)] = produce_durably(self._bootstrap, self._topic, 0, records, idempotent=False)
        return Heard(offset, appended_ms, job)

    def ask(self, ask: Ask) -> AskHeard:
        """Append an ask."""
        records = [(ask.key, encode_ask(ask))]
        [(offset, appended_ms)] = produce_durably(self._bootstrap, self._topic, 0, records, idempotent=False)
        return AskHeard(offset, appended_ms, ask)

    def history(self, limit: int) -> list[Job]:
        """The runs that were heard of last, newest first, as they stand now; at most so many."""
        bounds = self._log.bounds(self._topic, 0)
        back, last = _BACK, {}
        while bounds.stable_end > bounds.start:
            begin = max(bounds.start, bounds.stable_end - back)
            last = folded(self._read(begin, bounds.stable_end))
            if len(last) >= limit or begin == bounds.start:
                break
            back *= _GROWTH
        now_ms = time_source().now_us() // US_PER_MS
        return [told(heard, now_ms) for heard in reversed(last.values())][:limit]

    def since(self, instant_ms: int) -> list[Heard]:
        """The records that the broker took at that instant or later, in order."""
        begin = self._log.offsets_since(self._topic, [0], instant_ms)[0]
        return [] if begin < 0 else self.behind(begin - 1)

    def behind(self, offset: int) -> list[Heard]:
        """The records behind an offset, in order."""
        bounds = self._log.bounds(self._topic, 0)
        return list(self._read(max(bounds.start, offset + 1), bounds.stable_end))

    def recent(self) -> int:
        """An offset: what is asked and not begun is behind it."""
        bounds = self._log.bounds(self._topic, 0)
        return max(bounds.start, bounds.stable_end - _BACK) - 1

    def everything_behind(self, offset: int) -> list[AskHeard | Heard]:
        """The records behind an offset, asks among them, in order."""
        bounds = self._log.bounds(self._topic, 0)
        # A topic that was made anew is read from its beginning.
        begin = offset + 1 if offset <= bounds.stable_end else 0
        return list(scan(self._log, self._topic, max(bounds.start, begin), bounds.stable_end))

    def _read(self, begin: int, end: int) -> Iterator[Heard]:
        for found in scan(self._log, self._topic, begin, end):
            if isinstance(found, Heard):
                yield found


def scan(log: Log, topic: str, begin: int, end: int) -> Iterator[AskHeard | Heard]:
    """The records of a jobs topic from one offset to before another, asks among them, in order."""
    for message in log.scan(topic, 0, begin, end):
        offset, content, appended_ms = offset_of(message), message.value() or b"", message.timestamp()[1]
        try:
            if (message.key() or b"").startswith(ASK_KEY.encode()):
                yield AskHeard(offset, appended_ms, decode_ask(content))
            else:
                yield Heard(offset, appended_ms, decode(content))
        except (JobRecordError, AskError) as error:
            _logger.warning("job_record_unreadable", detail=f"{topic}[0]@{offset}: {error}")
