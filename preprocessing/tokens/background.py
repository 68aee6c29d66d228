"""Work in a thread beside the caller's, in order and never far ahead, so that memory stays bounded.

Hashing, reading, pyarrow, gigatoken and tokenizers all release the interpreter while they work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Final, Self, TypeVar

Item = TypeVar("Item")
_END: Final = object()


def ahead(items: Iterator[Item], depth: int = 1) -> Iterator[Item]:
    """Yield `items`, which a thread makes up to `depth` ahead of the caller. Their exceptions come out here."""
    with ThreadPoolExecutor(1) as pool:
        pending = deque(pool.submit(next, items, _END) for _ in range(depth))
        while (item := pending.popleft().result()) is not _END:
            pending.append(pool.submit(next, items, _END))
            yield item  # type: ignore[misc]


class Background:
    """Calls functions in one thread, in order. `submit` waits while more than `depth` calls wait themselves.

    An exception of a call comes out of a later `submit` or of `finish`; leaving the `with` block waits for the thread.
    """

    def __init__(self, depth: int = 1) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._pending: deque[Future[Any]] = deque()
        self._depth = depth

    def submit(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Have `function(*arguments)` called after all that were submitted before."""
        while len(self._pending) > self._depth or (self._pending and self._pending[0].done()):
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(function, *arguments))

    def finish(self) -> None:
        """Wait until all calls are done."""
        while self._pending:
            self._pending.popleft().result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
