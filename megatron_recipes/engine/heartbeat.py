"""Signs of life of every rank, so that a watchdog beside the job can tell a slow run from one that hangs, and where.

A rank that waits for another in a collective call can report nothing from there, so a thread of each rank writes
`RUN/heartbeat/rank_NNNNN`: one line `STEP SINCE HOST PID`, the step that it is in and when that began (seconds of the
epoch). It is written anew every few seconds, so an old file is a process that is frozen or gone. Ranks that are a step
behind the others are those that the others wait for.
"""

from __future__ import annotations

import faulthandler
import os
import shutil
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

FOLDER = "heartbeat"
SECONDS = 5.0  # between two writes of a rank


class Heartbeat:
    """The signs of life of one rank, as long as the block lasts; `step` is what it is in."""

    def __init__(self, run: Path, rank: int) -> None:
        """Of rank `rank` of the run in folder `run`."""
        self.path = run / FOLDER / f"rank_{rank:05d}"
        self.place = f"{os.environ.get('SLURMD_NODENAME') or socket.gethostname()} {os.getpid()}"
        self.now = (0, time.time())
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._write, daemon=True, name="heartbeat")

    def __enter__(self) -> Heartbeat:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.ended.set()
        self.thread.join()
        self.path.unlink(missing_ok=True)
        with suppress(OSError):  # others are still there, or the last one was quicker
            self.path.parent.rmdir()

    def enter(self, step: int) -> None:
        """`step` begins."""
        self.now = (step, time.time())

    def _write(self) -> None:
        while True:
            step, since = self.now
            with suppress(OSError):  # a full disk is reported by what writes the results
                self._write_over(f"{step} {since:.0f} {self.place}\n".encode())
            if self.ended.wait(SECONDS):
                return

    def _write_over(self, line: bytes) -> None:
        """In place: a file that is emptied first is empty for whoever looks now, and stays so on a full disk."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.pwrite(descriptor, line, 0)
            os.ftruncate(descriptor, len(line))
        finally:
            os.close(descriptor)


def print_stacks_on_signal() -> None:
    """From here on SIGUSR2 makes this process print the stacks of all its threads, and go on."""
    faulthandler.register(signal.SIGUSR2, file=sys.stderr, all_threads=True)


def clear(run: Path) -> None:
    """Forget the ranks of an earlier start, of which there may have been more. For one rank, before the others begin."""
    shutil.rmtree(run / FOLDER, ignore_errors=True)
