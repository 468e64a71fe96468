"""Jobs on a real ledger that are killed at any operation: the next run ends what was begun, and nothing is lost.

Each point has a manifest, a jobs topic and a data directory of its own, copied from what a reference run had before the
job; a process runs the job and kills itself there (job_victim.py), another runs it to its end. Then the tree, the files
and what the hot store holds are to be those of the reference, byte for byte.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import NewTopic

from lifecycle.archived_chunks import ArchivedChunks
from lifecycle.file_tree import OWNER, FileTree, root_of
from lifecycle.hot_store import HotStore
from lifecycle.keeper import chunks_in
from lifecycle.layout import index_of
from lifecycle.manifest_log import ManifestLog
from lifecycle.proving import entries_in
from lifecycle.verifying import digest_of, open_segment, verify
from streams.sequence import encode
from tests.broker.harness import ROOT, Ledger, Load, wait_for
from tests.broker.job_victim import LOOK, RAISED, Fate, Plan

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lifecycle.chunks import ChunkBytes
    from lifecycle.manifest import Segment

EVENTS = (20_000, 9_000)
#: Files are kept for ten days; files are deep from then on.
RULES = {
    "kept": ("configuration/retention_policies.json", '{"version": 1, "archives_days": 10}'),
    "old": ("configuration/lifecycle_rules.json", '{"version": 1, "deep_days": 10}'),
}


class State(NamedTuple):
    """Between jobs. records: of the manifest; folder: a data directory, whose root is `root`."""

    records: tuple[bytes, ...]
    folder: Path

    @property
    def root(self) -> Path:
        """Of the archive."""
        (root,) = (self.folder / "temporal").iterdir()
        return root

    def saved(self, folder: Path) -> State:
        """A copy."""
        shutil.copytree(self.folder, folder)
        return self._replace(folder=folder)


class Stand(NamedTuple):
    """What a place came to: files, by path, what the manifest says of them, and what the hot store holds."""

    files: dict[str, bytes]
    segments: tuple[Segment, ...]
    held: list[ChunkBytes]
    away: list[int]


class Place:
    """A copy of a state, with topics of its own."""

    _numbers = itertools.count(1)

    def __init__(self, ledger: Ledger, state: State | None, folder: Path) -> None:
        number = next(self._numbers)
        self._ledger, self.folder = ledger, folder
        self.manifest, self.jobs = f"{ledger.prefix}.{number}.manifest", f"{ledger.prefix}.{number}.jobs"
        self.root = root_of(folder, self.manifest)
        topics = [NewTopic(topic, 1, 1) for topic in (self.manifest, self.jobs)]
        for made in ledger.admin.create_topics(topics, operation_timeout=30).values():
            made.result(30)
        if state is None:
            shutil.copytree(ledger.folder / "hot", folder / "hot")
            return
        shutil.copytree(state.folder / "hot", folder / "hot")
        shutil.copytree(state.root, self.root)
        (self.root / OWNER).write_text(self.manifest)
        producer = Producer({"bootstrap.servers": ledger.bootstrap})
        for record in state.records:
            producer.produce(self.manifest, record, b"0", 0)
        assert not producer.flush(30)

    def saved(self, folder: Path) -> State:
        """As it is now."""
        shutil.copytree(self.folder, folder)
        return State(tuple(record.value() or b"" for record in self._ledger.records(self.manifest, 0)), folder)

    def check_whole(self) -> None:
        """That each file that the manifest names is there, and is what was written."""
        with self._ledger.log() as log:
            segments = ManifestLog(log, self.manifest).refresh().parts.get(0, ())
        files = FileTree(self.root, self.manifest)
        for segment in segments:
            for path, sha256 in ((segment.path, segment.sha256), (index_of(segment.path), segment.index_sha256)):
                with files.open_checked(path) as content:
                    assert digest_of(content) == sha256

    def files(self) -> dict[str, bytes]:
        """Below the root, by path."""
        return {
            path.relative_to(self.root).as_posix(): path.read_bytes()
            for path in self.root.rglob("*")
            if path.is_file() and path.name != OWNER
        }

    def stand(self) -> Stand:
        """As it is now; everything that there is, is read."""
        with self._ledger.log() as log:
            manifest = ManifestLog(log, self.manifest)
            segments = manifest.refresh().parts.get(0, ())
            archives = ArchivedChunks(FileTree(self.root, self.manifest), manifest)
            [folder] = self.folder.glob("hot/*/*/lane-0")
            store = HotStore.open(folder)
            held = [store.chunk(0, line.first_sequence) for line in store.lines(0) if line.held]
            away = store.away(0).tolist()
            list(chunks_in(archives, 0, away))
            store.close()
            archives.close()
        return Stand(self.files(), tuple(segment._replace(moved_us=0) for segment in segments), held, away)


class Victims:
    """The process that makes others."""

    def __init__(self, ledger: Ledger) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DRIFTLEDGER_")}
        self._errors = (ledger.folder / "victims.log").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.broker.job_victim"],
            cwd=ROOT,
            env=environment | ledger.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def run(self, place: Place, job: str, days: float, point: int = 0, reads: int = 0) -> Fate:
        """A job in a place."""
        return self.fate_of(Plan(job, days, point, str(place.folder), place.manifest, place.jobs, reads))

    def fate_of(self, plan: Plan) -> Fate:
        """A job, in a process of its own."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(plan._asdict()) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise AssertionError(self._errors.read()[-3000:])
        return Fate(**json.loads(line))

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(30)
        self._errors.close()


class Scene(NamedTuple):
    """A ledger, who runs jobs, and states by name."""

    ledger: Ledger
    victims: Victims
    states: dict[str, State]
    folder: Path


@pytest.fixture(scope="module")
def scene(kafka: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A ledger of one partition, an hour of which is sealed in two parts, joined, and moved to the deep tier."""
    folder = tmp_path_factory.mktemp("kills")
    options = {"partitions": 1, "lanes": 1, "lifecycle_interval_s": 0}
    ledger = Ledger(kafka.bootstrap, f"kills{os.getpid()}", folder / "data", options)
    ledger.folder.mkdir()
    ledger.create()
    load = Load(ledger)
    states: dict[str, State] = {}
    victims = Victims(ledger)

    def grow(events: int) -> None:
        load.send(events)
        load.flush()
        with ledger.worker() as worker:
            ledger.wait_level(worker)
            wait_for(lambda: worker.output.count("hot_tier_level") == 1, "it is hot")
            worker.stop()

    def step(before: str, job: str, days: float, after: str) -> None:
        place = Place(ledger, states.get(before), folder / f"to-{after}")
        assert victims.run(place, job, days) == Fate(0, ANY, "")
        states[after] = place.saved(folder / after)

    with contextlib.closing(victims):
        grow(EVENTS[0])
        step("", "seal", 9, "one")
        grow(EVENTS[1])
        shutil.rmtree(states["one"].folder / "hot")
        shutil.copytree(ledger.folder / "hot", states["one"].folder / "hot")
        step("one", "seal", 9, "two")
        step("two", "compact", 9, "joined")
        step("joined", LOOK, 20, "away")
        for name, before in (("kept", "two"), ("old", "joined")):
            states[name] = states[before].saved(folder / name)
            rules, text = RULES[name]
            (states[name].root / rules).parent.mkdir(exist_ok=True)
            (states[name].root / rules).write_text(text)
        lost = states["joined"].saved(folder / "lost")._replace(records=())
        next(lost.root.rglob("*.index")).unlink()
        damaged = states["joined"].saved(folder / "damaged")
        next(damaged.root.rglob("*.parquet")).unlink()
        yield Scene(ledger, victims, states | {"lost": lost, "damaged": damaged}, folder)


class _Any:
    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


ANY: Any = _Any()


class Case(NamedTuple):
    """A job: the state before it, how many days later it runs, and reads of the first chunk before it does."""

    before: str
    job: str
    days: float
    reads: int = 0


CASES = {
    "seal": Case("one", "seal", 9),
    "compact": Case("two", "compact", 9),
    "demote": Case("old", "demote", 20),
    "prune": Case("kept", "prune", 30),
    "verify": Case("two", "verify", 9),
    "reindex": Case("lost", "reindex", 9),
    "restore": Case("damaged", "restore", 9),
    "hours leave": Case("joined", LOOK, 20),
    "hours come back": Case("away", LOOK, 22, 2_000),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.soak)], ids=["some", "all"])
def test_whatever_a_kill_cuts_off_the_next_run_ends(scene: Scene, case: Case, *, every: bool, tmp_path: Path) -> None:
    """At each operation: the same tree, the same files with the same bytes, the same rows in the hot store."""
    victims, state = scene.victims, scene.states[case.before]

    def place_at(point: int) -> tuple[Place, Fate]:
        place = Place(scene.ledger, state, tmp_path / str(point))
        return place, victims.run(place, case.job, case.days, point, case.reads)

    begun = Place(scene.ledger, state, tmp_path / "begun").stand() if case.job not in ("reindex", "restore") else None
    place, whole = place_at(0)
    assert (whole.code, whole.error) == (0, "")
    wanted = place.stand()
    assert (wanted == begun) == (case.job == "verify")
    points = range(1, 2 * whole.done) if every else (whole.done // 2,)
    for point in points:
        place, fate = place_at(point)
        if fate.code == 0:  # there are not so many
            assert point > whole.done // 2
            break
        assert fate.code == -signal.SIGKILL, fate
        if begun is not None:
            place.check_whole()
        # What a worker has noted of a move that its store lost holds for a day.
        days = case.days + 2 if case.job == LOOK else case.days
        assert victims.run(place, case.job, days, reads=case.reads)[::2] == (0, "")
        assert place.stand() == wanted, f"killed at {point} of {whole.done}"
        shutil.rmtree(place.folder)


@pytest.mark.parametrize(
    ("before", "job", "days", "told"),
    [
        ("kept", "prune", 30, "is damaged"),
        ("lost", "seal", 9, "the manifest does not name it"),
        ("lost", LOOK, 9, "the man"),
    ],
    ids=[
        "a file that is damaged is to be pruned",
        "the manifest is empty",
        "a worker looks, and the manifest is empty",
    ],
)
def test_nothing_is_removed_that_is_not_proved_elsewhere(
    scene: Scene, tmp_path: Path, before: str, job: str, days: float, told: str
) -> None:
    """The job refuses, and names the file."""
    place = Place(scene.ledger, scene.states[before], tmp_path / "data")
    if before == "kept":
        file = place.root / "historical"
        (file,) = sorted(file.rglob("*.parquet"))[:1]
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    there = place.files()
    fate = scene.victims.run(place, job, days)
    assert fate.code == RAISED, fate
    assert told in fate.error
    assert ".parquet" in fate.error
    assert {path: there.get(path) for path in place.files() if "usage" not in path} == there


def test_the_files_of_all_jobs_are_the_ledger(scene: Scene) -> None:
    """What those that were not killed leave, which the others are compared with."""
    ledger = scene.ledger
    records = [record.value() for record in ledger.records(ledger.names.sequenced, 0)]
    for name in ("one", "two", "joined", "away"):
        place = Place(ledger, scene.states[name], scene.folder / f"read-{name}")
        found: list[bytes] = []
        with ledger.log() as log:
            segments = ManifestLog(log, place.manifest).refresh().parts[0]
        files = FileTree(place.root, place.manifest)
        for segment in segments:
            verify(files, segment)
            with open_segment(files, segment) as (archive, _):
                for _, _, entries in entries_in(archive):
                    encoded, starts = encode(entries)
                    found += [encoded[a:b].tobytes() for a, b in itertools.pairwise(starts)]
        assert found == records[: len(found)]
        assert len(found) > EVENTS[0] // 2
    assert len(scene.states["two"].records) > len(scene.states["one"].records)
    assert (scene.states["away"].folder / "hot").is_dir()
