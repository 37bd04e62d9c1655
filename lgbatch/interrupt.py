"""Ctrl-C and SIGTERM: where work is done in batches, the first one lets the batch in flight be kept.

Only the command line puts handlers in place; whoever uses the stages from Python keeps their own.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


class Interrupted(KeyboardInterrupt):
    """Ends a command that a signal stopped."""

    def __init__(self, number: int) -> None:
        """Of the signal of this number."""
        super().__init__(number)
        self.status = 128 + number
        """Exit status, as shells have it: 130 after Ctrl-C, 143 after SIGTERM."""


class _Handler:
    """What came, and whether it can wait."""

    def __init__(self) -> None:
        self.depth = 0
        self.came: int | None = None

    def __call__(self, number: int, frame: object) -> None:
        if self.came is not None:
            _say(b"\n")  # the prompt is not to stand in a progress bar
            os._exit(128 + number)
        self.came = number
        if not self.depth:
            raise Interrupted(number)
        _say(b"\nlgbatch: stopping after the batch in flight, which is kept; once more stops at once\n")


def _say(line: bytes) -> None:
    with contextlib.suppress(OSError):
        os.write(2, line)  # sys.stderr may be in the middle of a line of its own


_handler = _Handler()


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Handle Ctrl-C and SIGTERM while the block runs. In another than the main thread, do nothing.

    The first one raises Interrupted: at once, or, in a block that is `deferred`, at its end. The second one ends the
    process. A signal that is ignored, as Ctrl-C in the background of a shell, stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        _handler.came = None


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """A loop that stops by itself when asked to, by `until_stopped`. Raises Interrupted at its end, if it was."""
    _handler.depth += 1
    try:
        yield
    finally:
        _handler.depth -= 1
    if _handler.came is not None:
        raise Interrupted(_handler.came)


def until_stopped(items: Iterable[T]) -> Iterator[T]:
    """The items, as long as no signal has come."""
    for item in items:
        yield item
        if _handler.came is not None:
            return
