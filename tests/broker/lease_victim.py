"""A process that holds the lease of a manifest and is killed at a point of a commit.

Run as a program by test_manifest_log.py: bootstrap, prefix, the point ("before" for none of a transaction), how long
after it (us), and the partition and the indexes of the file that its commit adds.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

from lifecycle.job_run import JobRun
from lifecycle.manifest import Move
from lifecycle.manifest_log import ManifestLease
from schemas.clock import SystemTime
from schemas.topics import topic_names
from tests.core.manifest_histories import commit, segment

if TYPE_CHECKING:
    from streams.transactions import Point


def main(bootstrap: str, prefix: str, point: str, delay_us: int, partition: int, first: int, last: int) -> None:
    """Hold the lease, and die."""

    def die() -> None:
        SystemTime().sleep_s(delay_us / 1_000_000)
        os.kill(os.getpid(), signal.SIGKILL)

    def at(now: Point) -> None:
        if now == point:
            if delay_us:
                threading.Thread(target=die, daemon=True).start()
            else:
                die()

    names = topic_names(prefix, "events")
    with JobRun(bootstrap, names.jobs, "victim") as run, ManifestLease(bootstrap, names, run, at=at) as lease:
        if point == "before":
            die()
        lease.commit(commit(lease.tree.commit + 1, Move.SEAL, partition, [segment(partition, first, last)], []))
        die()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], *(int(number) for number in sys.argv[4:]))
