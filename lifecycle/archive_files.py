"""The files of a ledger's archive, by its settings: here, but for the tiers that `archive_uri` takes elsewhere.

Problem: what is old is to lie where space costs least, and what is asked for often beside who asks. A path begins with
its tier, so each request goes to where that tier lies, and nobody else has to know.

GUARANTEE without `archive_uri` it is `FileTree` alone: nothing is looked up twice, and nothing is asked of a network.
HAZARD files do not move when the setting changes: they are where they were, and are lost until they are copied
(docs/lifecycle.md). The manifest has paths, and none of them says where its tier lies.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

from pyarrow import fs

from lifecycle.file_tree import FileTree, root_of
from lifecycle.object_tree import ObjectTree
from lifecycle.tiers import Tier
from streams.archive_uri import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import BinaryIO

    from lifecycle.manifest import Tree
    from streams.archive_uri import ArchiveUri
    from streams.settings import Settings

#: A connection is waited for so long, and an answer, each time; a request is tried so often.
_CONNECT_S: Final = 5
_ANSWER_S: Final = 20
_TRIES: Final = 4


class TieredFiles(FileTree):
    """A tree of which some tiers lie elsewhere. Methods raise also what those raise."""

    def __init__(self, root: Path, owner: str, elsewhere: Mapping[Tier, FileTree | ObjectTree]) -> None:
        super().__init__(root, owner)
        self._elsewhere = {str(tier): files for tier, files in elsewhere.items()}

    def fresh(self, tier: Tier) -> Path:
        """On a disk of this machine."""
        files = self._elsewhere.get(tier)
        return super().fresh(tier) if files is None else files.fresh(tier)

    def publish(self, fresh: Path, path: str) -> None:
        """As where its tier lies."""
        files = self._of(path)
        if files is None:
            super().publish(fresh, path)
        else:
            files.publish(fresh, path)

    def replace(self, fresh: Path, path: str) -> None:
        """As where its tier lies."""
        files = self._of(path)
        if files is None:
            super().replace(fresh, path)
        else:
            files.replace(fresh, path)

    def remove(self, path: str) -> bool:
        """As where its tier lies."""
        files = self._of(path)
        return super().remove(path) if files is None else files.remove(path)

    def orphans(self, tree: Tree) -> list[str]:
        """Of all tiers, where each lies."""
        found = [path for path in super().orphans(self._there(tree, None)) if self._of(path) is None]
        for files in dict.fromkeys(self._elsewhere.values()):
            found += [path for path in files.orphans(self._there(tree, files)) if self._of(path) is files]
        return sorted(found)

    def open_checked(self, path: str) -> BinaryIO:
        """As where its tier lies."""
        files = self._of(path)
        return super().open_checked(path) if files is None else files.open_checked(path)

    def _of(self, path: str) -> FileTree | ObjectTree | None:
        return self._elsewhere.get(path.partition("/")[0])

    def _there(self, tree: Tree, files: FileTree | ObjectTree | None) -> Tree:
        """What the manifest names of one place."""
        parts = {
            partition: tuple(segment for segment in segments if self._of(segment.path) is files)
            for partition, segments in tree.parts.items()
        }
        return replace(tree, parts=parts)


def files_of(settings: Settings, manifest: str, cluster_id: Callable[[], str]) -> FileTree:
    """The files of a ledger, by the name of its manifest. cluster_id: of the Kafka that has it."""
    root = root_of(settings.data_dir, manifest)
    if settings.archive_uri is None:
        return FileTree(root, manifest)
    uri, name = parse(settings.archive_uri), root.name
    tiers = [Tier(tier) for tier in settings.archive_uri_tiers.split(",")]
    files: FileTree | ObjectTree
    if uri.scheme == "file":
        files = FileTree(Path(uri.path) / name, manifest)
    else:
        files = ObjectTree(
            lambda: file_system(uri),
            f"{uri.path}/{name}",
            f"{uri.shown}/{name}",
            lambda: f"{manifest} of cluster {cluster_id()}",
            FileTree(root, manifest),
            tiers,
        )
    return TieredFiles(root, manifest, dict.fromkeys(tiers, files))


def file_system(uri: ArchiveUri) -> Any:
    """The client of a store. Raises OSError and ArrowException where there is none."""
    if uri.scheme != "s3":
        query = urlencode(uri.parameters)
        place = f"{uri.scheme}://{quote(uri.path)}"
        return fs.FileSystem.from_uri(f"{place}?{query}" if query else place)[0]
    options: dict[str, Any] = dict(uri.parameters)
    if "region" not in options and "endpoint_override" not in options:
        options["region"] = fs.resolve_s3_region(uri.path.partition("/")[0])
    return fs.S3FileSystem(
        **options,
        connect_timeout=_CONNECT_S,
        request_timeout=_ANSWER_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_TRIES),
        # A file that fits in one part is one request, and leaves no parts where it is cut off.
        allow_delayed_open=True,
    )
