"""Files of the archive in a store of objects: a server that speaks S3, and a way to it on which things go wrong."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from lifecycle import archive_files
from lifecycle.archive_files import TieredFiles, file_system
from lifecycle.file_tree import EmptyRootError, FileLostError, FileTree, ForeignPathError
from lifecycle.layout import index_of
from lifecycle.manifest import Move, Tree
from lifecycle.object_errors import Trouble
from lifecycle.object_tree import ObjectStoreUnavailableError, ObjectTree, OccupiedPathError
from lifecycle.tiers import Grain, Tier
from streams.archive_uri import parse
from tests.core.manifest_histories import commit, segment
from tests.core.s3_faults import Fault, Way, way_to

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.core.s3_server import Server

FIRST, SECOND = segment(0, 1, 4, Tier.DEEP), segment(0, 5, 9, Tier.DEEP, Grain.YEARLY)
PATH = FIRST.path
OWNER = "a.b.manifest of cluster c"


@pytest.fixture
def way(s3: Server) -> Iterator[Way]:
    """To the store."""
    with way_to(s3.address) as way:
        yield way


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits does so for a second, and tries twice."""
    monkeypatch.setattr(archive_files, "_CONNECT_S", 1)
    monkeypatch.setattr(archive_files, "_ANSWER_S", 1)
    monkeypatch.setattr(archive_files, "_TRIES", 2)


def tree_at(address: str, folder: Path, owner: str = OWNER, bucket: str = "cold") -> ObjectTree:
    """Of the deep tier; the folder says where it lies."""
    uri = parse(f"s3://{bucket}/{folder.name}?endpoint_override={address}&scheme=http&region=us-east-1")
    staging = FileTree(folder / "root", "a.b.manifest")
    return ObjectTree(lambda: file_system(uri), uri.path, uri.shown, lambda: owner, staging, [Tier.DEEP])


def written(tree: ObjectTree, content: bytes) -> Path:
    """A fresh file with content."""
    fresh = tree.fresh(Tier.DEEP)
    fresh.write_bytes(content)
    return fresh


def content_of(tree: ObjectTree, path: str) -> bytes:
    """All of a file."""
    with tree.open_checked(path) as file:
        return file.read()


def test_what_is_published_was_read_back(way: Way, tmp_path: Path) -> None:
    """One put, and its bytes come back before it returns; nothing of it stays on this machine."""
    tree = tree_at(way.address, tmp_path)
    fresh = written(tree, b"content")
    tree.publish(fresh, PATH)
    puts = [at for at, (method, path, _) in enumerate(way.passed) if method == "PUT" and PATH in path]
    gets = [at for at, (method, path, _) in enumerate(way.passed) if method == "GET" and PATH in path]
    assert len(puts) == 1
    assert max(gets) > puts[0]
    assert way.count("POST") == 0
    assert not fresh.exists()
    assert content_of(tree, PATH) == b"content"
    assert tree.orphans(Tree()) == [PATH]


def test_a_file_of_many_parts_is_whole(way: Way, tmp_path: Path) -> None:
    """And is read in few requests from one end to the other, or in parts."""
    tree, content = tree_at(way.address, tmp_path), random.Random(1).randbytes(25_000_000)
    tree.publish(written(tree, content), PATH)
    assert way.count("POST", PATH) == 2
    way.passed.clear()
    with tree.open_checked(PATH) as file:
        assert b"".join(iter(lambda: file.read(100_000), b"")) == content
        assert way.count("GET", PATH) <= 14
        file.seek(7_000_000)
        assert file.read(1_000) == content[7_000_000:7_001_000]
    assert way.passed[-1][2] == "bytes=7000000-7000999"


def test_what_is_there_is_not_overwritten(way: Way, tmp_path: Path) -> None:
    """The same bytes are not sent again, others are refused; a damaged object is replaced when that is asked for."""
    tree = tree_at(way.address, tmp_path)
    tree.publish(written(tree, b"content"), PATH)
    way.passed.clear()
    tree.publish(written(tree, b"content"), PATH)
    assert way.count("PUT", PATH) == 0
    for other in (b"CONTENT", b"longer content"):
        fresh = written(tree, other)
        with pytest.raises(OccupiedPathError, match="with other bytes, and was left as it is"):
            tree.publish(fresh, PATH)
        assert content_of(tree, PATH) == b"content"
        assert fresh.read_bytes() == other
        tree.replace(fresh, PATH)
        assert content_of(tree, PATH) == other
        tree.replace(written(tree, b"content"), PATH)


def test_what_is_removed_is_gone(way: Way, tmp_path: Path) -> None:
    """Again is harmless; a fresh file is one of this machine."""
    tree = tree_at(way.address, tmp_path)
    tree.publish(written(tree, b"content"), PATH)
    with tree.open_checked(PATH) as file:
        assert tree.remove(PATH)
        with pytest.raises(FileLostError, match="is not there"):
            file.read()
    assert not tree.remove(PATH)
    with pytest.raises(FileLostError, match=f"s3://cold/{tmp_path.name}/{PATH} is not there"):
        tree.open_checked(PATH)
    fresh = written(tree, b"x").relative_to(tmp_path / "root").as_posix()
    assert tree.orphans(Tree()) == [fresh]
    assert tree.remove(fresh)
    assert tree.orphans(Tree()) == []


def test_orphans_are_of_our_folders_only(way: Way, tmp_path: Path) -> None:
    """What the manifest does not name; nothing that stands elsewhere."""
    tree = tree_at(way.address, tmp_path)
    named = Tree().after(commit(1, Move.SEAL, 0, [FIRST], []))
    for path in (PATH, index_of(PATH), SECOND.path, index_of(SECOND.path)):
        tree.publish(written(tree, path.encode()), path)
    system = tree._system
    for path in ("deep/x.parquet", "historical/daily/2026-11-23/data/x", "deep/fresh/x.new", "deep/mine/x"):
        with system.open_output_stream(f"cold/{tmp_path.name}/{path}") as file:
            file.write(b"x")
    assert tree.orphans(named) == sorted([SECOND.path, index_of(SECOND.path)])


def test_a_place_is_one_ledgers_of_one_cluster(way: Way, tmp_path: Path) -> None:
    """Another's files would be orphans of this one."""
    tree = tree_at(way.address, tmp_path)
    tree.publish(written(tree, b"content"), PATH)
    other = tree_at(way.address, tmp_path, "a.b.manifest of cluster d")
    for act in (
        lambda: other.orphans(Tree()),
        lambda: other.publish(written(other, b""), PATH),
        lambda: other.remove(PATH),
    ):
        with pytest.raises(ForeignPathError, match=r"holds the archive of 'a\.b\.manifest of cluster c', not of"):
            act()
    assert content_of(tree, PATH) == b"content"


def test_a_place_where_nothing_is_is_no_loss_of_files(way: Way, tmp_path: Path) -> None:
    """They lie elsewhere: to make them again would be wrong."""
    with pytest.raises(ObjectStoreUnavailableError, match="nothing of this ledger was ever put there"):
        tree_at(way.address, tmp_path).open_checked(PATH)


def test_a_place_is_not_taken_before_what_the_manifest_names_is_there(way: Way, tmp_path: Path) -> None:
    """A setting that was changed before its files were copied changes nothing."""
    tree = tree_at(way.address, tmp_path)
    named = Tree().after(commit(1, Move.SEAL, 0, [FIRST], []))
    for _ in range(2):
        with pytest.raises(ObjectStoreUnavailableError, match="copy them there first"):
            tree.orphans(named)
    assert way.count("PUT") == 0
    with tree._system.open_output_stream(f"cold/{tmp_path.name}/{PATH}") as file:
        file.write(b"copied")
    assert tree.orphans(named) == []
    assert content_of(tree, PATH) == b"copied"
    assert way.count("PUT", "OWNER") == 1


@pytest.mark.parametrize("path", ["../x", "deep/daily/2026-11-23/data/../x", "OWNER", "deep/fresh/x.new", ""])
def test_a_path_that_is_none_of_ours_is_refused(way: Way, tmp_path: Path, path: str) -> None:
    """Before the store is asked."""
    tree = tree_at(way.address, tmp_path)
    fresh = written(tree, b"")
    for act in (lambda: tree.open_checked(path), lambda: tree.publish(fresh, path), lambda: tree.replace(fresh, path)):
        with pytest.raises(ForeignPathError):
            act()
    outside = tmp_path / "outside"
    outside.touch()
    with pytest.raises(ForeignPathError, match="is not on its way to"):
        tree.publish(outside, PATH)
    fresh.unlink()
    with pytest.raises(FileLostError):
        tree.publish(fresh, PATH)
    assert way.count("PUT", PATH) == 0


# -------------------------------------------------------------------------------------------------------------- faults


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("fault", "trouble"),
    [
        (Fault("PUT", PATH, 403), Trouble.REFUSED),
        (Fault("GET", PATH, 403), Trouble.REFUSED),
        (Fault("PUT", PATH, 503), Trouble.BUSY),
        (Fault("HEAD", PATH, 500), Trouble.BUSY),
        pytest.param(Fault("PUT", PATH, "hang"), Trouble.TIMEOUT, marks=pytest.mark.soak),
        (Fault("GET", PATH, "hang"), Trouble.TIMEOUT),
        (Fault("PUT", PATH, "lost"), None),
        (Fault("GET", PATH, "cut"), None),
        (Fault("GET", PATH, "flip"), Trouble.OTHER),
    ],
    ids=lambda each: f"{each.method} {each.kind}" if isinstance(each, Fault) else "",
)
def test_what_goes_wrong_is_named_and_gone_on_from(
    way: Way, tmp_path: Path, fault: Fault, trouble: Trouble | None
) -> None:
    """Tried a bounded number of times; nothing is published by halves, and the next try ends it."""
    tree = tree_at(way.address, tmp_path)
    tree.orphans(Tree())
    fresh = written(tree, b"content" * 1_000)
    way.faults.append(fault)
    with pytest.raises(ObjectStoreUnavailableError, match=rf"s3://cold/{tmp_path.name}/{PATH} cannot be used") as told:
        tree.publish(fresh, PATH)
    assert trouble in (None, told.value.trouble)
    assert told.value.remedy in str(told.value)
    assert way.count(fault.method, PATH) <= 8
    way.faults.clear()
    tree.publish(fresh, PATH)
    assert content_of(tree, PATH) == b"content" * 1_000


@pytest.mark.parametrize(
    "fault", [Fault("PUT", PATH, 503, 1), Fault("PUT", PATH, "lost", 1), Fault("GET", PATH, 500, 1)]
)
def test_what_goes_wrong_once_is_not_told(way: Way, tmp_path: Path, fault: Fault) -> None:
    """It is tried again."""
    tree = tree_at(way.address, tmp_path)
    way.faults.append(fault)
    tree.publish(written(tree, b"content"), PATH)
    assert content_of(tree, PATH) == b"content"
    assert fault.times == 0


@pytest.mark.usefixtures("impatient")
def test_a_store_that_is_not_there_or_not_ours_is_named(
    way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No server, no bucket, keys that are not in force; and no key is in what is told."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobodys")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-that-nobody-has")
    trees: list[tuple[ObjectTree, Trouble]] = [
        (tree_at("127.0.0.1:9", tmp_path), Trouble.NO_CONNECTION),
        (tree_at(way.address, tmp_path), Trouble.REFUSED),
    ]
    for tree, trouble in trees:
        with pytest.raises(ObjectStoreUnavailableError) as listed:
            tree.orphans(Tree())
        with pytest.raises(ObjectStoreUnavailableError) as opened:
            tree.open_checked(PATH)
        for told in (listed, opened):
            assert told.value.trouble is trouble
            assert "secret" not in str(told.value)


def test_a_bucket_that_is_not_there_is_named(way: Way, tmp_path: Path) -> None:
    """It is not made: whose it would be is an operator's to say."""
    tree = tree_at(way.address, tmp_path, bucket="not-there")
    with pytest.raises(ObjectStoreUnavailableError) as told:
        tree.publish(written(tree, b""), PATH)
    assert told.value.trouble is Trouble.NO_BUCKET


# --------------------------------------------------------------------------------------------------------- tier by tier


def test_each_tier_lies_where_it_is_said_to(way: Way, tmp_path: Path) -> None:
    """Deep ones elsewhere, the others here."""
    tree = tree_at(way.address, tmp_path)
    check_tiers(TieredFiles(tmp_path / "root", "a.b.manifest", {Tier.DEEP: tree}), tmp_path / "root")
    assert way.count("PUT", PATH) == 1
    assert way.count("PUT", "historical") == 0


def test_a_tier_may_lie_in_another_folder(tmp_path: Path) -> None:
    """A file system of its own, that need not be mounted below the root."""
    there = FileTree(tmp_path / "cold", "a.b.manifest")
    files = TieredFiles(tmp_path / "root", "a.b.manifest", {Tier.DEEP: there})
    check_tiers(files, tmp_path / "root")
    assert (tmp_path / "cold" / PATH).exists()


def test_a_root_is_asked_for_its_own_files_alone(tmp_path: Path) -> None:
    """Those of a tier that lies elsewhere are missed there, and not here."""
    there = FileTree(tmp_path / "cold", "a.b.manifest")
    files = TieredFiles(tmp_path / "root", "a.b.manifest", {Tier.DEEP: there})
    named = Tree().after(commit(1, Move.SEAL, 0, [FIRST], []))
    with pytest.raises(EmptyRootError, match="cold"):
        files.orphans(named)
    file = tmp_path / "cold" / PATH
    file.parent.mkdir(parents=True)
    file.touch()
    assert files.orphans(named) == []


def check_tiers(files: TieredFiles, root: Path) -> None:
    """Publish one of each tier, list, read, replace and remove them; one deep file stays."""
    near = segment(0, 5, 9).path
    for path in (PATH, index_of(PATH), near):
        fresh = files.fresh(Tier(path.partition("/")[0]))
        fresh.write_bytes(path.encode())
        files.publish(fresh, path)
        with files.open_checked(path) as file:
            assert file.read() == path.encode()
    assert (root / near).exists()
    assert not (root / PATH).exists()
    assert files.orphans(Tree()) == sorted([PATH, index_of(PATH), near])
    for path in (PATH, near):
        fresh = files.fresh(Tier(path.partition("/")[0]))
        fresh.write_bytes(path.encode())
        assert len(files.orphans(Tree())) == 4
        files.replace(fresh, path)
    assert files.remove(near)
    assert files.remove(index_of(PATH))
    assert files.orphans(Tree()) == [PATH]


def test_a_client_of_another_kind_is_made_of_its_uri() -> None:
    """Nothing is asked for before a file is."""
    assert file_system(parse("gs://cold/a?endpoint_override=127.0.0.1:9&scheme=http")).type_name == "gcs"
    region: Any = file_system(parse("s3://cold/a?region=eu-central-1")).region
    assert region == "eu-central-1"
