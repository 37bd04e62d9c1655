"""Work in a process of its own: where a library aborts, it takes nothing else along.

The two processes talk in lines of JSON. The other one ends when this one does, however that comes.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import IO, Any, NoReturn

from lgbatch.workspace.signals import deferred

Message = dict[str, Any]
Tell = Callable[[Message], None]
_TICK = 0.1  # seconds between two looks at the other process' bar, and the longest that a Ctrl-C goes unnoticed
_STOP = b"stop\n"
_KEPT_LINES = 50


class Died(RuntimeError):
    """The process ended before its work was done. The message is the last thing that it said, or how it ended."""


def run_worker(module: str, request: Message, tell: Callable[[Message | None], None], *, show: bool = False) -> Message:
    """Have `python -m module`, which calls `serve`, do what `request` asks; what its work returns.

    What it tells on its way is passed to `tell`, and None while there is nothing to tell. Its standard error is kept
    for Died, and passed on with `show`. At a KeyboardInterrupt it is asked to stop and waited for. Raises Died, and
    RuntimeError with the message of what its work raised.
    """
    process: subprocess.Popen[bytes] | None = None
    said: deque[str] = deque(maxlen=_KEPT_LINES)
    messages: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
    readers: list[threading.Thread] = []
    try:
        with deferred(tell=False):
            process = _start(module)
            assert process.stdout and process.stderr
            readers = [
                threading.Thread(target=_receive, args=(process.stdout, messages), daemon=True),
                threading.Thread(target=_listen, args=(process.stderr, said, show), daemon=True),
            ]
            for reader in readers:
                reader.start()
            _send(process, json.dumps(request).encode() + b"\n")
        while True:
            try:
                message = messages.get(timeout=_TICK)
            except queue.Empty:
                tell(None)
                continue
            if message is None:
                readers[1].join()
                raise Died(_last_words(said, process.wait()))
            if "raised" in message:
                raise RuntimeError(message["raised"])
            if "done" in message:
                done: Message = message["done"]
                return done
            tell(message)
    except KeyboardInterrupt:
        if process:
            _send(process, _STOP)
            process.wait()
        raise
    finally:
        if process and process.stdin:
            with contextlib.suppress(OSError):
                process.stdin.close()  # which ends it
            process.wait()
            for reader in readers:
                reader.join()


def serve(work: Callable[[Message, Tell], Message], stop: Callable[[], None]) -> NoReturn:
    """In the other process: do the work that is asked for, and end.

    `work` gets the request and how to tell something on its way. `stop` is called, in another thread, when the work
    is to end early.
    """
    for number in signal.SIGINT, signal.SIGTERM:  # it is told to stop by whoever asked
        signal.signal(number, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what else is printed
    asked = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115  lives as long as the process
    request = json.loads(asked.readline())

    def answer(message: Message) -> None:
        answers.write(json.dumps(message).encode() + b"\n")

    def watch() -> None:
        if asked.readline() == _STOP:
            stop()
            asked.readline()
        os._exit(1)  # whoever asked is gone

    threading.Thread(target=watch, daemon=True).start()
    try:
        answer({"done": work(request, answer)})
    except (RuntimeError, ValueError, OSError) as error:
        with contextlib.suppress(OSError):
            answer({"raised": str(error)})
    os._exit(0)


def _start(module: str) -> "subprocess.Popen[bytes]":
    pipe = subprocess.PIPE
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", module], stdin=pipe, stdout=pipe, stderr=pipe, env=environment
        )
    except OSError as error:
        raise Died(f"cannot start another process: {error.strerror}") from None


def _send(process: "subprocess.Popen[bytes]", data: bytes) -> None:
    assert process.stdin
    with contextlib.suppress(OSError):  # it has died, which shows elsewhere
        process.stdin.write(data)
        process.stdin.flush()


def _receive(stream: IO[bytes], messages: "queue.SimpleQueue[Message | None]") -> None:
    with stream, contextlib.suppress(ValueError):  # a line that it died in
        for line in stream:
            messages.put(json.loads(line))
    messages.put(None)


def _listen(stream: IO[bytes], said: deque[str], show: bool) -> None:
    with stream:
        for line in stream:
            text = line.decode(errors="replace")
            said.append(text.strip())
            if show:
                sys.stderr.write(text)


def _last_words(said: deque[str], status: int) -> str:
    """Why it died: what it said on that in the end, without file and line of its source."""
    for line in reversed(said):
        if line.startswith(("what():", "F")) and (reason := line.removeprefix("what():").rpartition("] ")[2].strip()):
            return reason[:200]
    try:
        return f"its process was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"its process ended with status {status}"
