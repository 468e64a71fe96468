"""The drills of docs/operations.md, as they stand there: what is lost is lost, and the commands bring it back.

A drill is a heading below "Drills" and the commands under it. A command of ours is run by its entry point, any other by
a shell, in the folder that has the data directory. What stands behind a `#` is checked: an exit code, what is told
after "; ", or what is waited for after "until".
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from lifecycle.jobs import Jobs
from lifecycle.layout import index_of
from lifecycle.packing import DamagedError
from lifecycle.reader import Reader
from lifecycle.steps import Job
from lifecycle.tiers import Grain
from streams.cli.main import main
from tests.broker.harness import ROOT, Ledger, Load, wait_for
from tests.broker.job_ledgers import later
from tests.broker.job_victim import Plan
from tests.broker.test_job_kills import Victims

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lifecycle.manifest import Segment

EVENTS = 20_000
#: Of hours that are still to be archived, in the life of a worker: the jobs of these drills run so many days later.
DAYS = 9
DATA = ".driftledger"
_CODE = re.compile(r"exit code ([0-9]+)")


class Command(NamedTuple):
    """A line of a drill. code: that it ends with; told: what it says then; until: what is waited for."""

    line: str
    code: int
    told: str
    until: str


def drills() -> dict[str, list[Command]]:
    """By heading."""
    text = (ROOT / "docs" / "operations.md").read_text()
    (section,) = re.findall(r"^## Drills\n(.*?)^## ", text, re.DOTALL | re.MULTILINE)
    found: dict[str, list[Command]] = {}
    for heading, body in re.findall(r"^### (.*?)\n(.*?)(?=^### |\Z)", section, re.DOTALL | re.MULTILINE):
        found[heading] = [command_of(line) for line in body.splitlines() if line.startswith("    ")]
    return found


def command_of(line: str) -> Command:
    """A line, and what is said of it."""
    command, _, note = (part.strip() for part in line.partition("#"))
    code = _CODE.search(note)
    told = note.partition("; ")[2] if code else ""
    return Command(command, int(code[1]) if code else 0, told, note.removeprefix("until ") if "until " in note else "")


class Shell:
    """Runs commands as an operator does; workers go on until the drill ends."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder, self._capsys, self._monkeypatch = folder, capsys, monkeypatch
        self._workers: list[subprocess.Popen[bytes]] = []
        self.told = ""

    def run(self, command: Command) -> None:
        """One command; what it said is told."""
        words = shlex.split(command.line)
        if command.line == "driftledger worker":
            self.stop()
            self._start()
        elif words[0] == "export":
            name, _, value = words[1].partition("=")
            self._monkeypatch.setenv(name, value)
        elif command.until:
            wait_for(lambda: self._is(words, command.until), f"{command}:\n{self.told}", poll_s=0.5)
        else:
            code = self._ours(words[1:]) if words[0] == "driftledger" else self._another(command.line)
            assert code == command.code, f"{command} ended with {code}:\n{self.told}"
            assert command.told in self.told, command

    def _ours(self, arguments: list[str]) -> int:
        self._capsys.readouterr()
        with later(DAYS):
            code = main(arguments)
        self.told = "".join(self._capsys.readouterr())
        return code

    def _another(self, line: str) -> int:
        done = subprocess.run(line, shell=True, cwd=self._folder, capture_output=True, text=True, check=False)  # noqa: S602
        self.told = done.stdout + done.stderr
        return done.returncode

    def _is(self, words: list[str], until: str) -> bool:
        """Whether each partition is as it is waited for."""
        self._ours([*words[1:], "--output", "jsonl"])
        rows = [json.loads(line) for line in self.told.splitlines() if line.startswith("{")]
        if until == "hot is level":
            return bool(rows) and all(row["hot"] == "level" and row["input_lag_offsets"] == 0 for row in rows)
        (code,) = re.findall(r"has ([A-Z_]+)$", until)
        return len(rows) == int(os.environ["DRIFTLEDGER_PARTITIONS"]) and all(code in str(row) for row in rows)

    def _start(self) -> None:
        """By the command's own entry point, in a process of its own."""
        self._workers.append(
            subprocess.Popen(
                [sys.executable, "-c", "from streams.cli.main import run; run()", "worker"],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )

    def stop(self) -> None:
        """End workers in order."""
        while self._workers:
            worker = self._workers.pop()
            worker.terminate()
            assert worker.wait(30) == 0


class Scene(NamedTuple):
    """A ledger whose hours are archived; its answers, by a question that needs all of it."""

    ledger: Ledger
    folder: Path

    @property
    def data_dir(self) -> Path:
        """Of the ledger."""
        return self.ledger.settings.data_dir

    def segments(self) -> list[Segment]:
        """All files."""
        with Jobs(self.ledger.settings, self.ledger.bootstrap) as jobs:
            return [segment for part in jobs.tree().parts.values() for segment in part]

    def file(self, path: str) -> Path:
        """Of an archive or an index."""
        with Jobs(self.ledger.settings, self.ledger.bootstrap) as jobs:
            return jobs.files.root / path

    def lose(self, *topics: str) -> None:
        """Delete topics."""
        for deleted in self.ledger.admin.delete_topics(list(topics)).values():
            deleted.result(30)
        admin: Any = self.ledger.admin
        wait_for(lambda: not set(topics) & set(admin.list_topics(timeout=10).topics), "they are deleted")

    def answer(self) -> Any:
        """Of everything, from wherever it lies."""
        reader = Reader(self.ledger.settings)
        found = reader.temporal_range_query(limit=EVENTS, columns=["partition", "sequence", "event_id", "value"])
        return found.replace_schema_metadata(), reader.aggregate(by="source").replace_schema_metadata()


def begun(kafka: Any, prefix: str, folder: Path) -> Ledger:
    """A ledger with events, whose worker has ended."""
    options = {"partitions": 2, "lanes": 1, "lifecycle_interval_s": 0, "data_dir": folder / DATA}
    (folder / DATA).mkdir()
    made = Ledger(kafka.bootstrap, prefix, folder, options).create()
    load = Load(made)
    load.send(EVENTS)
    load.flush()
    with made.worker() as worker:
        made.wait_level(worker)
        wait_for(lambda: worker.output.count("hot_tier_level") == 2, "it is hot")
        worker.stop()
    return made


@pytest.fixture(scope="module")
def anew(kafka: Any, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """A ledger of which nothing is archived before the first tests have done it."""
    folder = tmp_path_factory.mktemp("drills")
    return Scene(begun(kafka, f"drills{os.getpid()}", folder), folder)


@pytest.fixture
def scene(anew: Scene) -> Scene:
    """Each drill leaves it as it was."""
    for job in (Job.SEAL, Job.COMPACT):
        run_job(anew.ledger, job)
    return anew


def run_job(ledger: Ledger, job: Job) -> None:
    """To its end."""
    with later(DAYS), Jobs(ledger.settings, ledger.bootstrap) as jobs:
        jobs.run(job, lambda *_: None, take_over=True)


def drill(
    scene: Scene,
    heading: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    between: Callable[[Command], None] = lambda _: None,
) -> None:
    """Run its commands; between: told of each before it is run."""
    for name, value in scene.ledger.environment().items():
        monkeypatch.setenv(name, value)
    shell = Shell(scene.folder, capsys, monkeypatch)
    try:
        for command in drills()[heading]:
            between(command)
            shell.run(renamed(command, scene.ledger))
    finally:
        shell.stop()


def renamed(command: Command, ledger: Ledger) -> Command:
    """With the topics of this ledger."""
    return command._replace(line=command.line.replace("=driftledger.events", f"={ledger.names.input}"))


Fixtures = tuple[pytest.CaptureFixture[str], pytest.MonkeyPatch]


@pytest.fixture
def operator(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Fixtures:
    """What drills are run with."""
    return capsys, monkeypatch


def test_every_drill_has_a_test_and_every_test_its_drill() -> None:
    """By heading, and the drills have commands."""
    source = (ROOT / "tests" / "broker" / "test_drills.py").read_text()
    tested = re.findall(r'drill\((?:scene|anew|lost), "(.*?)"', source)
    assert sorted(tested) == sorted(drills())
    assert all(drills().values())


def test_the_disk_is_full_during_a_seal(anew: Scene, operator: Fixtures) -> None:
    """Files may have 50,000 bytes, until room is made."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    commands: list[str] = []

    def make_room(command: Command) -> None:
        full = not commands
        commands.append(command.line)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000 if full else soft, hard))
        assert anew.segments() == [] or len(commands) > 3

    try:
        drill(anew, "The disk is full during a seal", *operator, make_room)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert {segment.facts.partition for segment in anew.segments()} == set(anew.ledger.partitions)


def test_a_host_dies_in_the_middle_of_a_job(anew: Scene, operator: Fixtures) -> None:
    """Killed between a file and its commit."""
    ledger = anew.ledger
    run_job(ledger, Job.SEAL)
    with contextlib.closing(Victims(ledger)) as victims:
        plan = Plan("compact", DAYS, 30, str(anew.data_dir), ledger.names.manifest, ledger.names.jobs)
        assert victims.fate_of(plan).code == -signal.SIGKILL
    drill(anew, "A host dies in the middle of a job", *operator)
    assert {segment.grain for segment in anew.segments()} == {Grain.DAILY}


def test_the_hot_tier_is_lost(scene: Scene, operator: Fixtures) -> None:
    """It is filled again."""
    wanted = scene.answer()
    shutil.rmtree(scene.data_dir / "hot")
    assert scene.answer() == wanted
    drill(scene, "The hot tier is lost", *operator)
    assert scene.answer() == wanted


@pytest.mark.soak
def test_the_hot_tier_is_damaged(scene: Scene, operator: Fixtures) -> None:
    """Bits of all its tables are flipped; it is not served, and filled again."""
    wanted = scene.answer()
    rng = random.Random(1)
    for file in (scene.data_dir / "hot").rglob("*.sst"):
        content = bytearray(file.read_bytes())
        for _ in range(20):
            content[rng.randrange(len(content))] ^= 1
        file.write_bytes(content)
    assert scene.answer() == wanted
    drill(scene, "The hot tier is damaged", *operator)
    assert scene.answer() == wanted
    shutil.rmtree(scene.data_dir / "hot.damaged")


def test_an_archive_is_lost(scene: Scene, operator: Fixtures) -> None:
    """It comes back as it was."""
    file = scene.file(scene.segments()[0].path)
    content = file.read_bytes()
    file.unlink()
    drill(scene, "An archive is lost", *operator)
    assert file.read_bytes() == content


def test_an_archive_is_damaged(scene: Scene, operator: Fixtures) -> None:
    """Two that were swapped, with a byte written over in one of them; both are named."""
    files = [scene.file(segment.path) for segment in scene.segments()[:2]]
    contents = [file.read_bytes() for file in files]
    files[0].write_bytes(contents[1])
    files[1].write_bytes(contents[0][:500] + b"\0" + contents[0][501:])
    with pytest.raises(DamagedError) as told:
        run_job(scene.ledger, Job.VERIFY)
    assert all(segment.path in str(told.value) for segment in scene.segments()[:2])
    drill(scene, "An archive is damaged", *operator)
    assert [file.read_bytes() for file in files] == contents


def test_an_index_is_lost(scene: Scene, operator: Fixtures) -> None:
    """One is gone, one is cut."""
    files = [scene.file(index_of(segment.path)) for segment in scene.segments()[:2]]
    contents = [file.read_bytes() for file in files]
    files[0].unlink()
    files[1].write_bytes(contents[1][:-1])
    drill(scene, "An index is lost", *operator)
    assert [file.read_bytes() for file in files] == contents


def test_the_manifest_topic_is_lost(scene: Scene, operator: Fixtures) -> None:
    """No file is touched, and all are known again."""
    known = [segment._replace(moved_us=0) for segment in scene.segments()]
    wanted = scene.answer()
    scene.lose(scene.ledger.names.manifest)
    drill(scene, "The manifest topic is lost", *operator)
    assert [segment._replace(moved_us=0) for segment in scene.segments()] == known
    assert scene.answer() == wanted
    assert scene.ledger.halts() == {}


def test_the_jobs_topic_is_lost(scene: Scene, operator: Fixtures) -> None:
    """Jobs run all the same."""
    scene.lose(scene.ledger.names.jobs)
    drill(scene, "The jobs topic is lost", *operator)


@pytest.mark.soak
def test_the_snapshots_topic_is_lost(scene: Scene, operator: Fixtures) -> None:
    """The ledger is read from its beginning."""
    wanted = scene.answer()
    scene.lose(scene.ledger.names.snapshots)
    drill(scene, "The snapshots topic is lost", *operator)
    assert scene.answer() == wanted


def test_the_wrong_data_directory_is_mounted(scene: Scene, operator: Fixtures) -> None:
    """That of another ledger; nothing is removed there or here."""
    right, other = scene.data_dir.with_name(".driftledger.right"), scene.data_dir / "temporal" / "another.events"
    scene.data_dir.rename(right)
    other.mkdir(parents=True)
    (other / "OWNER").write_text("another.events.manifest")
    wanted = {path: path.read_bytes() for path in right.rglob("*.parquet")}
    drill(scene, "The wrong data directory is mounted", *operator)
    assert not right.exists()
    assert {scene.data_dir / path.relative_to(right): content for path, content in wanted.items()} == {
        path: path.read_bytes() for path in scene.data_dir.rglob("*.parquet")
    }
    shutil.rmtree(scene.data_dir.with_name(".driftledger.wrong"))


@pytest.mark.soak
def test_the_progress_topic_is_lost(kafka: Any, prefix: str, tmp_path: Path, operator: Fixtures) -> None:
    """The ledger halts, is whole, and another has all that the input has."""
    lost = Scene(begun(kafka, prefix, tmp_path), tmp_path)
    lost.lose(lost.ledger.names.progress)
    drill(lost, "The progress topic is lost", *operator)
    later_one = Ledger(
        lost.ledger.bootstrap,
        lost.ledger.prefix,
        lost.folder,
        {**lost.ledger.options, "ledger": "events-2", "input_topic": lost.ledger.names.input},
    )
    assert later_one.is_level()
    for partition in later_one.partitions:
        one, other = (ledger.head(partition) for ledger in (lost.ledger, later_one))
        assert one is not None
        assert other is not None
        assert one.sequence == other.sequence
