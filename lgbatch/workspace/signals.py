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
        self.numbers: list[signal.Signals] = []
        """What is handled now."""
        self.came: int | None = None
        self.depth = 0
        self.tell = True

    def __call__(self, number: int, frame: object) -> None:
        if self.came is not None:
            _say(b"\n")  # the prompt is not to stand in a progress bar
            os._exit(128 + number)
        self.came = number
        if not self.depth:
            raise Interrupted(number)
        if self.tell:
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
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    _handler.numbers = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    renew()
    try:
        yield
    finally:
        for number in _handler.numbers:
            signal.signal(number, before[number] or signal.SIG_DFL)
        _handler.came, _handler.numbers = None, []


def renew() -> None:
    """Put the handlers back in place, if there are any: pycolmap sets its own for SIGTERM when it is imported."""
    if threading.current_thread() is threading.main_thread():
        for number in _handler.numbers:
            signal.signal(number, _handler)


@contextlib.contextmanager
def deferred(*, tell: bool = True) -> Iterator[None]:
    """A block that ends soon by itself, or by `until_stopped`. Raises Interrupted at its end, if a signal came.

    The user is told so when it comes, unless not to `tell`.
    """
    renew()
    _handler.depth += 1
    _handler.tell = tell
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
