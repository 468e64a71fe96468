"""Follows the manifest and the jobs topic of a ledger, for pages, commands and metrics, while somebody asks.

Problem: how data lies, and what jobs do, is in two topics that grow for years and in the stores of each worker; reading
them for each page, each second, would cost more than the jobs. So one reader goes on from where it was, when somebody
asks who wants to know it newer than it is; while nobody does, nothing is read.

GUARANTEE memory: what `tier_files` and `run_view` keep; of the jobs topic the last RECORDS_MAX records are read, once.
GUARANTEE a view that was returned does not change, and `look` raises nothing: what cannot be read now is said in
`error`, and what was known stands.
HAZARD what is hot is this worker's alone, and up to HOT_S old; how an hour ages is told by the clock of this machine.
For any thread; who asks while another's question is under way waits for that.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog

from lifecycle.file_tree import root_of
from lifecycle.job_log import scan
from lifecycle.job_record import Heard
from lifecycle.lifecycle_page import Lifecycle
from lifecycle.manifest import ManifestError
from lifecycle.manifest import decode as decode_commit
from lifecycle.rules_reader import read_rules
from lifecycle.run_view import Runs
from lifecycle.tier_files import TierFiles, groups_of
from lifecycle.tier_view import Hot, view_of
from schemas.clock import SystemTime
from schemas.clock import source as time_source
from schemas.errors import DriftledgerError, UnreachableError
from schemas.instants import MS_PER_S, NS_PER_S, US_PER_MS
from schemas.topics import topic_names
from streams.log import Log, offset_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from lifecycle.tier_files import Group
    from lifecycle.tier_view import TierView
    from streams.settings import Settings

#: How old what is told of the hot tier may be: hours go through as many headers as there are hours.
HOT_S: Final = 30.0
#: Records of the jobs topic that are read at first: thirty days of jobs that run for an hour and a half of each.
RECORDS_MAX: Final = 32_768
_MINUTE_MS: Final = 60 * MS_PER_S
#: Questions are asked in true time, whatever dates the events.
_system: Final = SystemTime()
_logger = structlog.get_logger()


class LifecycleWatch:
    """Of one ledger. hot: what is hot of this worker's partitions, None of one that keeps nothing hot."""

    def __init__(self, settings: Settings, bootstrap: str, hot: Callable[[], Hot] | None = None) -> None:
        self.now = Lifecycle()
        self._settings, self._hot = settings, hot
        self._names = topic_names(settings.prefix, settings.ledger, settings.input_topic)
        self._root = root_of(settings.data_dir, self._names.manifest)
        self._log = Log(bootstrap)
        #: Over all that follows.
        self._lock = threading.Lock()
        self._files, self._manifest_id, self._manifest_offset = TierFiles(), "", 0
        self._runs, self._jobs_offset = Runs(), -1
        self._hours, self._hours_ns = Hot(), 0
        #: The view, and what it was made of.
        self._tiers: TierView | None = None
        self._facts: dict[str, Any] | None = None
        self._made: tuple[Any, ...] = ()
        self._read_ns = 0

    def look(self, fresh_s: float) -> Lifecycle:
        """What is known, not older than that unless it cannot be read now."""
        with self._lock:
            if not self._read_ns or _system.monotonic_ns() - self._read_ns >= fresh_s * NS_PER_S:
                self._read()
                self._read_ns = _system.monotonic_ns()
            return self.now

    def groups(self) -> list[Group]:
        """The files of the archive as of the last look, by tier, grain and partition."""
        with self._lock:
            return groups_of(self._files.files.values())

    def close(self) -> None:
        """End the clients, unless they are being asked: that is not waited for."""
        if self._lock.acquire(blocking=False):
            self._log.close()
            self._lock.release()

    def _read(self) -> None:
        now_ms = time_source().now_us() // US_PER_MS
        reads: tuple[Callable[[], None], ...] = (self._read_hot, self._read_logs, partial(self._make, now_ms))
        errors = [error for error in map(_told, reads) if error is not None]
        self.now = Lifecycle(
            self._tiers,
            self._facts,
            tuple(self._runs.jobs(now_ms)),
            tuple(self._runs.newest(now_ms)),
            self._runs.cut,
            self._files.commit,
            "; ".join(errors) or None,
        )

    def _read_hot(self) -> None:
        if self._hot is None or (self._hours_ns and _system.monotonic_ns() - self._hours_ns < HOT_S * NS_PER_S):
            return
        self._hours, self._hours_ns = self._hot(), _system.monotonic_ns()

    def _read_logs(self) -> None:
        self._read_manifest()
        self._read_jobs()

    def _read_manifest(self) -> None:
        topic = self._names.manifest
        facts = self._log.topic(topic)
        if facts is None:
            raise UnreachableError(f"topic {topic} does not exist. Run `driftledger topics create`")
        if facts.topic_id != self._manifest_id:
            self._files, self._manifest_id, self._manifest_offset = TierFiles(), facts.topic_id, 0
        end = self._log.bounds(topic, 0).stable_end
        for message in self._log.scan(topic, 0, self._manifest_offset, end):
            try:
                self._files.apply(decode_commit(message.value() or b""))
            except ManifestError as error:
                raise ManifestError(f"{topic}[0]@{offset_of(message)}: {error}") from error
            self._manifest_offset = offset_of(message) + 1
        self._manifest_offset = max(self._manifest_offset, end)

    def _read_jobs(self) -> None:
        topic = self._names.jobs
        bounds = self._log.bounds(topic, 0)
        if self._jobs_offset > bounds.stable_end:  # it was made anew
            self._runs, self._jobs_offset = Runs(), -1
        begin = max(bounds.start, self._jobs_offset)
        if self._jobs_offset < 0:
            begin = max(bounds.start, bounds.stable_end - RECORDS_MAX)
            self._runs.cut = begin > bounds.start
        for found in scan(self._log, topic, begin, bounds.stable_end):
            self._jobs_offset = found.offset + 1
            if isinstance(found, Heard):
                self._runs.apply(found)
        self._jobs_offset = bounds.stable_end

    def _make(self, now_ms: int) -> None:
        """Make the view, where there is something new to show; ages go on by the minute."""
        if not self._manifest_id:
            return
        rules = read_rules(self._root)
        minute_ms = now_ms - now_ms % _MINUTE_MS
        made = self._manifest_id, self._files.commit, self._hours_ns, minute_ms, rules
        if made != self._made:
            self._tiers = view_of(self._files, self._hours, rules, minute_ms, self._settings.partitions)
            self._facts, self._made = self._tiers.facts(), made


def _told(read: Callable[[], None]) -> str | None:
    """What kept something from being read."""
    try:
        read()
    except DriftledgerError as error:
        return str(error)
    except Exception as error:
        _logger.exception("lifecycle_watch_failed")
        return repr(error)
    return None
