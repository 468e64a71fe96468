"""Files of the archive: published whole, removed for good, never reached over a link, and what the disk refuses."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lifecycle.file_tree import (
    OWNER,
    EmptyRootError,
    FileLostError,
    FileTree,
    FileTreeUnavailableError,
    ForeignPathError,
    root_of,
    told_as_refusal,
)
from lifecycle.layout import index_of, parts_of, parts_of_any
from lifecycle.manifest import Move, Tree
from lifecycle.tiers import Grain, Tier
from tests.core.manifest_histories import commit, segment

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST, SECOND = segment(0, 1, 4), segment(0, 5, 9, Tier.DEEP, Grain.YEARLY)
PATH = FIRST.path


@pytest.fixture
def tree(tmp_path: Path) -> FileTree:
    """An archive without files."""
    return FileTree(root_of(tmp_path, "a.b.manifest"), "a.b.manifest")


def written(tree: FileTree, content: bytes = b"content", tier: Tier = Tier.HISTORICAL) -> Path:
    """A fresh file with content."""
    fresh = tree.fresh(tier)
    fresh.write_bytes(content)
    return fresh


def path_of_handle(handle: int) -> str:
    """What it was opened as."""
    return str(Path(f"/proc/self/fd/{handle}").readlink())


def published(tree: FileTree, path: str) -> Path:
    """A file there."""
    tree.publish(written(tree, path.encode(), Tier(path.partition("/")[0])), path)
    return tree.root / path


def test_what_is_published_is_there_and_was_on_disk_before(tree: FileTree, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file before it has its name; its folder, each new one's parent, and where it came from, after."""
    steps: list[str] = []
    sync, rename = os.fsync, os.rename

    def told(handle: int) -> None:
        steps.append(path_of_handle(handle).removeprefix(str(tree.root)))
        sync(handle)

    def renamed(*args: Any, **options: Any) -> None:
        steps.append("rename")
        rename(*args, **options)

    fresh = written(tree)
    monkeypatch.setattr(os, "fsync", told)
    monkeypatch.setattr(os, "rename", renamed)
    tree.publish(fresh, PATH)
    place = steps.index("rename")
    assert steps[place - 1] == f"/historical/fresh/{fresh.name}"
    assert set(steps[:place]) >= {"", "/historical", "/historical/daily", "/historical/daily/2026-11-23"}
    assert steps[place + 1 :] == ["/historical/daily/2026-11-23/data", "/historical/fresh"]
    with tree.open_checked(PATH) as file:
        assert file.read() == b"content"
    assert not fresh.exists()


def test_removing_is_on_disk_too_and_leaves_no_empty_folders(tree: FileTree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Again is harmless."""
    published(tree, PATH)
    published(tree, index_of(PATH))
    synced: list[str] = []
    sync = os.fsync

    def told(handle: int) -> None:
        synced.append(path_of_handle(handle).removeprefix(str(tree.root)))
        sync(handle)

    monkeypatch.setattr(os, "fsync", told)
    assert tree.remove(PATH)
    assert synced[0] == "/historical/daily/2026-11-23/data"
    assert sorted(each.name for each in (tree.root / "historical/daily/2026-11-23").iterdir()) == ["indices"]
    assert not tree.remove(PATH)
    assert tree.remove(index_of(PATH))
    assert list((tree.root / "historical/daily").iterdir()) == []
    with pytest.raises(FileLostError, match="2026-11-23 is not there"):
        tree.open_checked(PATH)


def test_an_archive_that_is_lost_is_told_by_its_path(tree: FileTree) -> None:
    """Its folder may be there, or not even the root."""
    with pytest.raises(FileLostError, match=r"a\.b is not there"):
        tree.open_checked(PATH)
    published(tree, PATH).unlink()
    with pytest.raises(FileLostError, match=r"\.parquet is not there"):
        tree.open_checked(PATH)
    fresh = tree.fresh(Tier.HISTORICAL)
    fresh.unlink()
    with pytest.raises(FileLostError, match=r"\.new is not there"):
        tree.publish(fresh, PATH)


def test_what_is_read_makes_nothing(tree: FileTree) -> None:
    """A root that may not be written can be read."""
    with pytest.raises(FileLostError):
        tree.open_checked(PATH)
    assert not tree.root.exists()


def test_orphans_are_the_files_in_our_folders_that_the_manifest_does_not_name(tree: FileTree) -> None:
    """Those on their way among them; nothing that stands elsewhere, and no link."""
    named = Tree().after(commit(1, Move.SEAL, 0, [FIRST], []))
    kept = [published(tree, PATH), published(tree, index_of(PATH))]
    lost = [published(tree, path) for path in (SECOND.path, index_of(SECOND.path))]
    lost.append(written(tree, tier=Tier.RECENT))
    lost.append(kept[0].with_name("half of something"))
    lost[-1].touch()
    elsewhere = [
        "configuration/lifecycle_rules.json",
        "historical/daily/2026-11-23/analytics.json",
        "historical/daily/manifest.json",
        "historical/daily/2026-11-23-copy/data/x.parquet",
        "historical/daily/2026-11-23/data/folder/x.parquet",
        "historical/mine/2026-11-23/data/x.parquet",
        "live/fresh/x.new",
        "mine/fresh/x.new",
        "x.parquet",
    ]
    for path in elsewhere:
        file = tree.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    outside = tree.root.parent / "outside"
    (outside / "data").mkdir(parents=True)
    (outside / "data/x.parquet").touch()
    (tree.root / "historical/daily/2026-11-24").symlink_to(outside)
    (tree.root / "deep/monthly").symlink_to(outside)
    kept[0].with_name("link").symlink_to(outside / "data/x.parquet")
    found = tree.orphans(named)
    assert found == sorted(file.relative_to(tree.root).as_posix() for file in lost)
    for path in found:
        assert tree.remove(path)
    assert tree.orphans(named) == []
    assert all(file.exists() for file in kept)
    assert all((tree.root / path).exists() for path in elsewhere)
    assert (outside / "data/x.parquet").exists()


def test_a_root_is_one_ledgers(tree: FileTree) -> None:
    """Another's files would be orphans of this one, and its own of the other."""
    published(tree, PATH)
    assert (tree.root / OWNER).read_text() == "a.b.manifest"
    other = FileTree(tree.root, "a.c.manifest")
    for act in (lambda: other.orphans(Tree()), lambda: other.fresh(Tier.DEEP), lambda: other.remove(PATH)):
        with pytest.raises(ForeignPathError, match=r"holds the archive of 'a\.b\.manifest', not of a\.c\.manifest"):
            act()
    assert FileTree(tree.root, "a.b.manifest").orphans(Tree()) == [PATH]


def test_a_root_is_not_taken_before_what_the_manifest_names_is_there(tree: FileTree) -> None:
    """A disk that is not mounted: what is put below its folder then would be hidden by it."""
    named = Tree().after(commit(1, Move.SEAL, 0, [FIRST], []))
    for _ in range(2):
        with pytest.raises(EmptyRootError, match=r"none of the 1 files .* write a\.b\.manifest to"):
            tree.orphans(named)
    assert not tree.root.exists()
    file = tree.root / PATH
    file.parent.mkdir(parents=True)
    file.touch()
    assert tree.orphans(named) == []
    file.unlink()
    assert FileTree(tree.root, "a.b.manifest").orphans(named) == []  # its root, with a file that is lost


# ---------------------------------------------------------------------------------------------------------------- links


@pytest.mark.parametrize("depth", range(1, 5))
def test_no_folder_is_entered_over_a_link(tree: FileTree, depth: int) -> None:
    """Neither to read nor to write nor to remove, at any depth; what it leads to stays as it is."""
    file = published(tree, PATH)
    parts = PATH.split("/")
    folder = tree.root.joinpath(*parts[:depth])
    outside = tree.root.parent / "outside"
    fresh = written(tree, tier=Tier.HISTORICAL)
    folder.rename(outside)
    folder.symlink_to(outside, target_is_directory=True)
    below = outside.joinpath(*parts[depth:])
    assert file.read_bytes() == below.read_bytes()
    for act in (
        lambda: tree.open_checked(PATH),
        lambda: tree.remove(PATH),
        lambda: tree.publish(fresh, PATH),
    ):
        with pytest.raises(ForeignPathError, match=r"is a link, or not of the kind"):
            act()
    assert PATH not in tree.orphans(Tree())
    assert below.read_bytes() == PATH.encode()


def test_no_file_is_read_over_a_link_and_none_that_is_no_file(tree: FileTree) -> None:
    """A pipe would be waited for, for ever."""
    file = published(tree, PATH)
    outside = tree.root.parent / "outside"
    outside.write_bytes(b"secret")
    file.unlink()
    file.symlink_to(outside)
    with pytest.raises(ForeignPathError, match="is a link"):
        tree.open_checked(PATH)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(ForeignPathError, match="is no file"):
        tree.open_checked(PATH)
    file.unlink()
    file.symlink_to(outside)
    assert tree.remove(PATH)  # the link
    assert outside.read_bytes() == b"secret"


def test_a_fresh_file_that_was_made_a_link_is_not_published(tree: FileTree) -> None:
    """Nor is a file that is none of ours."""
    fresh = written(tree)
    outside = tree.root.parent / "outside"
    fresh.rename(outside)
    fresh.symlink_to(outside)
    with pytest.raises(ForeignPathError, match="is a link"):
        tree.publish(fresh, PATH)
    for foreign in (outside, tree.root / OWNER, tree.root / "historical/fresh/../../OWNER", tree.root):
        with pytest.raises(ForeignPathError):
            tree.publish(foreign, PATH)
    with pytest.raises(ForeignPathError, match="is not on its way to"):
        tree.publish(written(tree, tier=Tier.DEEP), PATH)
    assert not (tree.root / PATH).exists()
    with pytest.raises(ForeignPathError, match="what is live is in no file"):
        tree.fresh(Tier.LIVE)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../outside",
        "historical/fresh/..",
        "historical/fresh/.",
        "historical/fresh/",
        "historical/fresh/a/b",
        "historical/fresh/a\0b",
        "historical/daily/../data/x",
        "historical/daily/2026-11-23/../x",
        "historical/daily/2026-11-23/data/..",
        "historical/daily/2026-11-23/data/a/b",
        "historical/daily/2026-11-23/other/x",
        "historical/daily/2026-11-32/data/x",
        "configuration/lifecycle_rules.json",
        "live/fresh/x",
        "OWNER",
        "",
    ],
)
def test_a_path_that_is_none_of_ours_is_refused(tree: FileTree, path: str) -> None:
    """Before the system is asked."""
    victim = tree.root.parent / "outside"
    victim.parent.mkdir()
    victim.touch()
    fresh = written(tree)
    for act in (lambda: tree.open_checked(path), lambda: tree.remove(path), lambda: tree.publish(fresh, path)):
        with pytest.raises(ForeignPathError, match="nothing is done with it"):
            act()
    assert victim.exists()
    assert fresh.exists()
    assert (tree.root / OWNER).exists()


def test_what_may_be_removed_need_not_be_what_may_be_published() -> None:
    """Any file in a folder of ours, but only archives and indices have a path."""
    assert parts_of(index_of(PATH))[3] == "indices"
    assert parts_of_any("historical/daily/2026-11-23/indices/half")[-1] == "half"
    for path in ("historical/daily/2026-11-23/indices/half", PATH.replace("/data/", "/indices/"), "deep/fresh/x.new"):
        with pytest.raises(ValueError, match="no path of"):
            parts_of(path)


# ------------------------------------------------------------------------------------------------------------- refusals


def test_a_limit_on_the_size_of_files_is_a_refusal_with_the_bytes(tree: FileTree) -> None:
    """Also in what the caller writes; the file that is half there is an orphan."""
    fresh = tree.fresh(Tier.HISTORICAL)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, before[1]))
    try:
        with pytest.raises(FileTreeUnavailableError) as refused, told_as_refusal(fresh):
            fresh.write_bytes(bytes(10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(refused.value).startswith(f"{fresh} cannot be used: File too large; 4,096 bytes of it are there, ")
    assert (refused.value.file, refused.value.size_bytes) == (fresh, 4_096)
    assert refused.value.free_bytes > 0
    assert tree.orphans(Tree()) == [fresh.relative_to(tree.root).as_posix()]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.EXDEV])
@pytest.mark.parametrize(
    ("call", "act"),
    [
        ("fsync", lambda tree, fresh: tree.publish(fresh, PATH)),
        ("rename", lambda tree, fresh: tree.publish(fresh, PATH)),
        ("mkdir", lambda tree, fresh: tree.publish(fresh, PATH)),
        ("open", lambda tree, _: tree.fresh(Tier.DEEP)),
        ("open", lambda tree, _: tree.open_checked(PATH)),
        ("open", lambda tree, _: tree.orphans(Tree())),
        ("unlink", lambda tree, fresh: tree.remove(fresh.relative_to(tree.root).as_posix())),
        ("open", lambda tree, _: FileTree(tree.root, "a.b.manifest").orphans(Tree())),
    ],
)
def test_what_the_system_refuses_is_told_with_the_file(
    tree: FileTree, monkeypatch: pytest.MonkeyPatch, number: int, call: str, act: Callable[[FileTree, Path], Any]
) -> None:
    """And nothing has changed."""
    fresh = written(tree)

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, call, refuse)
        with pytest.raises(FileTreeUnavailableError, match=os.strerror(number)) as refused:
            act(tree, fresh)
    assert str(tree.root) in str(refused.value)
    assert fresh.read_bytes() == b"content"
    assert not (tree.root / PATH).exists()


def test_a_disk_of_which_nobody_says_how_full_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal is told all the same."""

    def refuse(_: Any) -> None:
        raise OSError(errno.EIO, "no answer")

    monkeypatch.setattr(os, "statvfs", refuse)
    with (
        pytest.raises(FileTreeUnavailableError, match="an unknown number of bytes") as refused,
        told_as_refusal(tmp_path),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert refused.value.free_bytes == -1
