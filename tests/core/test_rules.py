"""The project's own rules bite: what the lint bans is refused, and the deployment file is whole."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from streams import java
from streams.kafka_layout import Layout, Ports, node_properties
from streams.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[2]

CLOCKS = [
    "import time\n\nNOW = time.time()\n",
    "import time\n\ntime.sleep(1)\n",
    "import time\n\nNOW = time.clock_gettime_ns(time.CLOCK_REALTIME)\n",
    "import time\n\nNOW = time.process_time_ns()\n",
    "import time\n\nNOW = time.thread_time_ns()\n",
    "import time\n\nNOW = time.strftime('%S')\n",
    "from time import monotonic_ns\n\nNOW = monotonic_ns()\n",
    "from time import localtime as parse\n\nNOW = parse()\n",
    "def now() -> float:\n    import time\n\n    return time.time()\n",
    "import timeit\n\nNOW = timeit.default_timer()\n",
    "import os\n\nNOW = os.times().elapsed\n",
    "import datetime\n\nNOW = datetime.datetime.now(tz=datetime.UTC)\n",
]
BANNED = [
    "confluent_kafka", "faust", "rocksdict", "threading", "random", "secrets", "uuid", "numpy.random", "schemas.clock",
    "streams.settings", "streams.broker",
]  # fmt: skip


def codes(source: str, path: str, *options: str) -> set[str]:
    """Codes of ruff's findings, were this the content of that file."""
    command = [sys.executable, "-m", "ruff", "check", "--quiet", "--output-format", "json", *options]
    ended = subprocess.run(
        [*command, "--stdin-filename", path, "-"],
        input=source,
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
    )
    return {finding["code"] for finding in json.loads(ended.stdout)}


@pytest.mark.parametrize("source", CLOCKS)
@pytest.mark.parametrize(
    "path", ["streams/judge.py", "streams/lane.py", "streams/cli/main.py", "schemas/codec.py", "tests/x.py"]
)
def test_nobody_reads_a_clock(source: str, path: str) -> None:
    """Shells and tests neither."""
    assert "TID251" in codes(source, path)


@pytest.mark.parametrize("source", CLOCKS)
def test_the_clock_module_reads_clocks(source: str) -> None:
    """The one exception."""
    assert "TID251" not in codes(source, "schemas/clock.py")


@pytest.mark.parametrize("form", ["import {}\n", "def f() -> None:\n    import {}\n"], ids=["top", "inside"])
@pytest.mark.parametrize("module", BANNED)
def test_a_pure_module_imports_no_shell(module: str, form: str) -> None:
    """Neither at its top nor inside a function; a shell may."""
    source = form.format(module)
    assert codes(source, "streams/judge.py", "--config", "purity.toml") == {"TID251"}
    assert codes(source, "schemas/codec.py", "--config", "purity.toml") == {"TID251"}
    assert codes(source, "streams/broker.py", "--config", "purity.toml") == set()


@pytest.mark.parametrize(
    "source",
    [
        "import random\n\nX = random.random()\n",
        "from random import Random\n\nX = Random()\n",
        "import numpy as np\n\nX = np.random.default_rng()\n",
        "from numpy.random import default_rng\n\nX = default_rng()\n",
        "from uuid import uuid4\n\nX = uuid4()\n",
    ],
)
def test_a_pure_module_draws_nothing_at_random(source: str) -> None:
    """Seeded or not; a shell may."""
    assert codes(source, "streams/judge.py", "--config", "purity.toml") == {"TID251"}
    assert codes(source, "streams/kafka_layout.py", "--config", "purity.toml") == set()


def test_the_sample_fleet_is_pure_but_for_its_seeded_generator() -> None:
    """Its file is excused as a whole, so without that import it must pass under another name."""
    source = (REPOSITORY / "streams/sample_fleet.py").read_text(encoding="utf-8")
    assert codes(source, "streams/judge.py", "--config", "purity.toml") == {"TID251"}
    assert codes(source.replace("import random\n", ""), "streams/judge.py", "--config", "purity.toml") == set()
    assert re.findall(r"random\.\w+\(.*?\)", source) == ["random.Random(name)"]


def test_no_module_imports_a_private_name() -> None:
    """What another module needs is public, and says what it is; tests reach it by the module they mirror."""
    ours = ("schemas", "streams", "lifecycle", "benchmarks", "docs", "tests")
    private = [
        f"{file.relative_to(REPOSITORY)} imports {name.name} of {node.module}"
        for folder in ours
        for file in sorted((REPOSITORY / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
        for name in node.names
        if name.name.startswith("_")
    ]
    assert private == []


def test_every_shell_is_banned_from_pure_modules() -> None:
    """Who may do I/O, and whom the others may not import, is one list, written twice."""
    rules = tomllib.loads((REPOSITORY / "purity.toml").read_text(encoding="utf-8"))["lint"]
    excused = {
        f"streams.{name}"
        for pattern in rules["per-file-ignores"]
        for name in re.findall(r"\w+", pattern.removeprefix("streams/").removesuffix(".py"))
        if pattern.startswith("streams/")
    }
    banned = {name for name in rules["flake8-tidy-imports"]["banned-api"] if name.startswith("streams.")}
    assert excused - {"streams.sample_fleet"} == banned  # pure, see above


@pytest.mark.parametrize("module", ["streams.settings", "streams.severity", "lifecycle"])
def test_schemas_imports_nothing_of_ours(module: str) -> None:
    """Outsiders have it alone."""
    assert "TID251" in codes(f"def f() -> None:\n    import {module}\n", "schemas/codec.py")


@pytest.mark.parametrize("file", sorted((REPOSITORY / "schemas").glob("*.py")), ids=lambda file: file.name)
def test_schemas_imports_itself_relatively(file: Path) -> None:
    """It has another name in its own wheel; ruff sees no difference between the two forms."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    absolute = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
    absolute += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    assert not [name for name in absolute if name.split(".")[0] == "schemas"]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """docker-compose.yml."""
    content: dict[str, Any] = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text(encoding="utf-8"))
    return content


def test_compose_declares_three_nodes_of_the_embedded_brokers_version(compose: dict[str, Any]) -> None:
    """And every node knows itself and all voters."""
    nodes = {name: service for name, service in compose["services"].items() if name.startswith("kafka-")}
    assert len(nodes) == 3
    for number, (name, service) in enumerate(sorted(nodes.items()), start=1):
        assert service["image"] == f"apache/kafka:{java.KAFKA_VERSION}"
        environment = service["environment"]
        assert environment["KAFKA_NODE_ID"] == str(number)
        assert environment["KAFKA_ADVERTISED_LISTENERS"] == f"PLAINTEXT://{name}:9092"
        assert f"{number}@{name}:9093" in environment["KAFKA_CONTROLLER_QUORUM_VOTERS"].split(",")


def test_compose_gives_kafka_only_properties_that_exist(compose: dict[str, Any]) -> None:
    """Each is one of the embedded broker's, or named here; a misspelt one would be silently ignored."""
    ours = set(node_properties(1, Layout("x", (Ports(1, 2),)), "x"))
    others = {"advertised.listeners", "unclean.leader.election.enable", "min.insync.replicas"}
    for name in compose["services"]["kafka-1"]["environment"]:
        if name != "CLUSTER_ID":
            assert name.removeprefix("KAFKA_").lower().replace("_", ".") in ours | others


def test_compose_refers_only_to_what_it_declares(compose: dict[str, Any]) -> None:
    """Services waited for, volumes, settings, commands."""
    settings = {f"DRIFTLEDGER_{field.upper()}" for field in Settings.model_fields}
    for service in compose["services"].values():
        assert set(service.get("depends_on", {})) <= set(compose["services"])
        named = {volume.partition(":")[0] for volume in service.get("volumes", []) if not volume.startswith("/")}
        assert named <= set(compose["volumes"])
        assert {name for name in service.get("environment", {}) if name.startswith("DRIFTLEDGER_")} <= settings


def test_what_workers_keep_is_in_a_volume_with_a_name(compose: dict[str, Any]) -> None:
    """Archives are there: one without a name is another with each container that is made anew."""
    worker = compose["services"]["worker"]
    folder = worker["environment"]["DRIFTLEDGER_DATA_DIR"]
    names = [name for name, _, inside in (each.partition(":") for each in worker["volumes"]) if inside == folder]
    assert names
    assert {*names} <= {*compose["volumes"]}


@pytest.mark.parametrize("name", ["wheel", "sdist"])
def test_the_image_is_built_of_all_packages(name: str) -> None:
    """Each folder that pyproject.toml packs is let through to Docker, and copied before the wheel is built."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    folders = [each.strip("/") for each in project["tool"]["hatch"]["build"]["targets"][name]["include"]]
    assert folders
    let_through = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    build, wheel, _ = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8").partition("RUN pip wheel")
    assert wheel
    for folder in folders:
        assert f"!{folder}" in let_through
        assert f"COPY {folder} {folder}" in build.splitlines()


def test_operators_can_look_up_each_line_of_the_log() -> None:
    """Events that workers log by a name of their own, in the table of docs/operations.md."""
    written = (REPOSITORY / "docs/operations.md").read_text(encoding="utf-8")
    told = re.compile(r'(?:_log(?:ger)?\.(?:debug|info|warning|error|critical|exception)\(|_expect\(error,)\s*"(\w+)"')
    files = sorted(file for folder in ("streams", "lifecycle") for file in (REPOSITORY / folder).rglob("*.py"))
    events = {name for file in files for name in told.findall(file.read_text(encoding="utf-8"))}
    assert {"lane_open", "lifecycle_failed", "kernels_awaited"} <= events
    assert [name for name in sorted(events) if f"`{name}`" not in written] == []


def test_docker_accepts_the_compose_file() -> None:
    """Asked where Docker and its compose plugin are installed; the checks above hold everywhere."""
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("docker compose is not installed")
    command = [docker, "compose", "--file", "docker-compose.yml", "config", "--quiet"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert (ended.returncode, ended.stderr) == (0, "")
