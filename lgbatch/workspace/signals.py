"""Ctrl-C and SIGTERM: a stage that is stopped finishes and commits its batch in flight; a second signal ends at once.

Only the command line installs handlers. Users of the Python API keep theirs.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


class Interrupted(KeyboardInterrupt):
    """Raised when a signal stops a command."""

    def __init__(self, number: int) -> None:
        """`number` is that of the signal."""
        super().__init__(number)
        self.status = 128 + number
        """Exit status by the convention of shells: 130 after Ctrl-C, 143 after SIGTERM."""


class _Handler:
    """The handler of both signals, and its state."""

    def __init__(self) -> None:
        self.signals: list[signal.Signals] = []
        """Signals that are handled now."""
        self.received: int | None = None
        """Number of the first signal."""
        self.deferring = 0
        """Depth of nested `deferred` blocks."""
        self.announce = True

    def __call__(self, number: int, frame: object) -> None:
        if self.received is not None:
            _write_stderr(b"\n")  # moves the prompt below the progress bar
            os._exit(128 + number)
        self.received = number
        if not self.deferring:
            raise Interrupted(number)
        if self.announce:
            _write_stderr(b"\nlgbatch: stopping after the batch in flight, which is kept; repeat to stop at once\n")


def _write_stderr(line: bytes) -> None:
    with contextlib.suppress(OSError):
        os.write(2, line)  # sys.stderr is not reentrant: the signal may interrupt a write to it


_handler = _Handler()


@contextlib.contextmanager
def handle_signals() -> Iterator[None]:
    """Handle Ctrl-C and SIGTERM while the block runs. Does nothing outside the main thread.

    The first signal raises Interrupted: at once, or at the end of a `deferred` block. The second one ends the process.
    A signal that is ignored, such as Ctrl-C of a background job in a shell, stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    _handler.signals = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    reinstall_handlers()
    try:
        yield
    finally:
        for number in _handler.signals:
            signal.signal(number, before[number] or signal.SIG_DFL)
        _handler.received, _handler.signals = None, []


def reinstall_handlers() -> None:
    """Install the handlers again, if they are in use: importing pycolmap replaces the one for SIGTERM."""
    if threading.current_thread() is threading.main_thread():
        for number in _handler.signals:
            signal.signal(number, _handler)


@contextlib.contextmanager
def deferred(*, announce: bool = True) -> Iterator[None]:
    """Defer signals to the end of the block, which then raises Interrupted. Loops in it stop by `until_stopped`.

    With `announce`, the handler prints that the command is stopping.
    """
    reinstall_handlers()
    _handler.deferring += 1
    _handler.announce = announce
    try:
        yield
    finally:
        _handler.deferring -= 1
    if _handler.received is not None:
        raise Interrupted(_handler.received)


def is_stopping() -> bool:
    """Whether a signal has been received: what has not begun is left out. Also in other threads than the main one."""
    return _handler.received is not None


def until_stopped(items: Iterable[T]) -> Iterator[T]:
    """Yield the items until a signal is received."""
    for item in items:
        yield item
        if is_stopping():
            return
