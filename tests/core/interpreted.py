"""Kernels as plain Python: what a function says in a process where nothing is compiled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_TIMEOUT_S = 120


def interpreted(module: str, call: str, *, refused: str = "error") -> bytes:
    """What a call of a module's function returns there, bytes or a text, as bytes.

    NUMBA_DISABLE_JIT holds for a whole process, so it is another one. refused: the warnings that fail it, as python -W
    takes them.
    """
    program = (
        f"import sys\nimport {module}\nfrom schemas.memory import JIT\nassert not JIT\nsaid = {module}.{call}\n"
        "sys.stdout.buffer.write(said if isinstance(said, bytes) else said.encode())"
    )
    done = subprocess.run(
        [sys.executable, "-W", refused, "-c", program],
        cwd=ROOT,
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        check=False,
        timeout=_TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout
