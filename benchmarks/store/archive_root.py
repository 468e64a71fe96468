"""Archives below a folder, with their manifest in a file: what jobs work on where there is no Kafka.

The lease is whoever runs: a job at a time, each in a process of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lifecycle.file_tree import FileTree
from lifecycle.job_steps import Work
from lifecycle.manifest import Tree, decode, encode

if TYPE_CHECKING:
    from pathlib import Path

    from lifecycle.manifest import Commit, Segment

_OWNER: Final = "bench.manifest"
_JOB: Final = "bench"


class FileLease:
    """A manifest of one writer."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.tree = Tree()
        if file.exists():
            for line in file.read_bytes().splitlines():
                self.tree = self.tree.after(decode(line))

    def commit(self, record: Commit) -> Tree:
        """One more."""
        self.tree = self.tree.after(record)
        with self._file.open("ab") as file:
            file.write(encode(record) + b"\n")
        return self.tree

    def refresh(self) -> Tree:
        """Nobody else writes."""
        return self.tree

    def held(self) -> Tree:
        """Likewise."""
        return self.tree


class ArchiveRoot:
    """Of one folder. now_us: what jobs take for the time."""

    def __init__(self, folder: Path, now_us: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.files = FileTree(folder / "files", _OWNER)
        self.lease = FileLease(folder / "manifest")
        self.work = Work(self.files, self.lease, _JOB, lambda: now_us)

    def segments(self) -> list[Segment]:
        """All files."""
        return [segment for segments in self.lease.tree.parts.values() for segment in segments]
