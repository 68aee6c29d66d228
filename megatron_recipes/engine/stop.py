"""SIGTERM, SIGINT and SIGUSR1 (Slurm's warning before a time limit) as a wish to save and leave with exit code 0."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


@dataclass(slots=True)
class StopSignal:
    """The number of the signal that came last, 0 while none did; the training loop looks at it after every step."""

    received: int = 0


@contextmanager
def handled_by(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Let `handle` take the three signals for the time of the block; those held back by `held_back` are taken first."""
    previous = {number: signal.signal(number, handle) for number in STOP_SIGNALS}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def stop_signals() -> Iterator[StopSignal]:
    """In a rank: turn the three signals into a wish to stop after the current step."""
    stop = StopSignal()

    def handle(number: int, frame: FrameType | None) -> None:
        stop.received = number

    with handled_by(handle):
        yield stop


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """Where there is nothing to save yet: the three signals end the process with exit code 0."""

    def handle(number: int, frame: FrameType | None) -> None:
        raise SystemExit(0)

    with handled_by(handle):
        yield


@contextmanager
def held_back() -> Iterator[None]:
    """Processes started in the block hold the three signals back until they enter `stop_signals`.

    Else a signal in the second in which Python starts would kill a rank.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
