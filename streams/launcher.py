"""Become another program, in a way that leaves no orphan.

Run as a script: launcher.py PARENT|detached PID_FILE PROGRAM ...

Problem: whoever starts a JVM may be killed before it could stop it, or even before it could write down its pid.

GUARANTEE the pid file is complete before the program runs, so a program that runs can be found.
GUARANTEE with PARENT (a pid) the kernel kills the program when the thread that started it ends, however it ends
(PR_SET_PDEATHSIG); if that happened before the request, the launcher sees another parent and does not start the
program. With "detached" the program has a session of its own and outlives everybody.
HAZARD the kernel watches the starting thread, not its process: start from one that lives as long as the program should.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def launch(owner: str, pid_file: str, command: list[str]) -> None:
    """Replace this process (detached: a grandchild of the caller's) with the command."""
    if owner == "detached":
        if os.fork():
            os._exit(0)
        os.setsid()
    else:
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != int(owner):
            os._exit(1)
    with open(f"{pid_file}.new", "w", encoding="ascii") as file:  # noqa: PTH123 - pathlib would double the start-up time
        file.write(str(os.getpid()))
    os.replace(f"{pid_file}.new", pid_file)  # noqa: PTH105
    os.execv(command[0], command)  # noqa: S606 - a shell is what this must not be


if __name__ == "__main__":
    launch(sys.argv[1], sys.argv[2], sys.argv[3:])
