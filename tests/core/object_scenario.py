"""The scenario of `job_scenario` with all files in a store of objects, which may be killed at any request.

    python -m tests.core.object_scenario FOLDER URI POINT jobs|mend|put

put: one file of many parts is published. At the POINT-th operation on the store, or on the manifest, the process ends
as if killed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from lifecycle.archive_files import TieredFiles, file_system
from lifecycle.file_tree import FileTree
from lifecycle.layout import FILED
from lifecycle.object_tree import ObjectTree
from lifecycle.tiers import Tier
from streams.archive_uri import parse
from tests.core.hours import over_hours
from tests.core.job_scenario import HOURS, KILLED, LENGTH, OWNER, SEED, mend, run
from tests.core.manifest_histories import segment

if TYPE_CHECKING:
    from collections.abc import Callable

#: The path of a file that is put.
LARGE = segment(0, 1, 4, Tier.DEEP).path


def files_at(folder: Path, uri: str, at: Callable[[], None] = lambda: None) -> TieredFiles:
    """Of all tiers. at: called before each operation on the store."""
    place = parse(uri)
    root = folder / "root"
    tree = ObjectTree(
        lambda: Counted(file_system(place), at), place.path, place.shown, lambda: OWNER, FileTree(root, OWNER), FILED
    )
    return TieredFiles(root, OWNER, dict.fromkeys(FILED, tree))


class Counted:
    """What is called of a file system, or of a file of it."""

    def __init__(self, inner: Any, at: Callable[[], None]) -> None:
        self._inner, self._at = inner, at

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._inner, name)

        def counted(*args: Any, **named: Any) -> Any:
            self._at()
            found = call(*args, **named)
            return Counted(found, self._at) if name.startswith("open_") else found

        return counted

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._at()
        self._inner.close()


def put(folder: Path, files: TieredFiles) -> None:
    """Publish the file of the folder."""
    fresh = files.fresh(Tier.DEEP)
    fresh.write_bytes((folder / "large").read_bytes())
    files.publish(fresh, LARGE)


def main(folder: Path, uri: str, point: int, what: str) -> None:
    """Until the point, or the end."""
    count = 0

    def at() -> None:
        nonlocal count
        count += 1
        if count == point:
            os._exit(KILLED)

    write = os.write

    def counted(*args: Any) -> int:
        at()
        return write(*args)

    files = files_at(folder, uri, at)
    if what == "put":
        put(folder, files)
        return
    hours = over_hours(SEED, LENGTH, HOURS)
    os.write = counted  # of the manifest
    (mend if what == "mend" else run)(folder, hours, files)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4])
