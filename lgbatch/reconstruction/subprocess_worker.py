"""Run work in a child process, so that a library that aborts ends only the child.

The processes exchange JSON, one message per line, over the child's standard input and output. The child exits when its
parent does, even if the parent is killed.
"""

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import IO, Any, NoReturn

from lgbatch.workspace.signals import deferred

Message = dict[str, Any]
Report = Callable[[Message], None]
"""Sends a progress message to the parent."""
_POLL_SECONDS = 0.1  # interval at which the parent redraws its progress bar, and the longest delay of Ctrl-C
_STOP = b"stop\n"
_STDERR_LINES = 50
_FATAL = re.compile(r"(?:what\(\):|F\d{4,8} \d\d:\d\d:\d\d\S*\s+\d+ \S+:\d+\]) +(?:\[\S+:\d+\] +)?(?P<reason>.+)")
"""A C++ exception, or glog's line of a fatal error: F, date, time, thread, file:line]. The text may begin with one."""


class WorkerDied(RuntimeError):
    """The child exited before its work was done. The message is its fatal error message or exit status."""


def run_worker(
    module: str,
    request: Message,
    on_message: Callable[[Message | None], None],
    *,
    on_stderr: Callable[[str], None] | None = None,
) -> Message:
    """Run `python -m module`, which calls `serve`, with `request`. Returns the result of its work.

    Calls `on_message` with each progress message, and with None every 0.1 s without one, and `on_stderr`, in another
    thread, with each line of the child's standard error. On KeyboardInterrupt, asks the child to stop and waits for it.

    Raises WorkerDied if the child dies or cannot be started, and RuntimeError with the message of an error that its
    work raised.
    """
    process: subprocess.Popen[bytes] | None = None
    stderr_lines: deque[str] = deque(maxlen=_STDERR_LINES)
    messages: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
    readers: list[threading.Thread] = []
    try:
        with deferred(announce=False):
            process = _start(module)
            assert process.stdout and process.stderr
            readers = [
                threading.Thread(target=_read_messages, args=(process.stdout, messages), daemon=True),
                threading.Thread(target=_read_stderr, args=(process.stderr, stderr_lines, on_stderr), daemon=True),
            ]
            for reader in readers:
                reader.start()
            _send(process, json.dumps(request).encode() + b"\n")
        result = _wait_for_result(messages, on_message)
        if result is None:
            readers[1].join()
            raise WorkerDied(_cause_of_death(stderr_lines, process.wait()))
        return result
    except KeyboardInterrupt:
        if process:
            _send(process, _STOP)
            process.wait()
        raise
    finally:
        if process and process.stdin:
            with contextlib.suppress(OSError):
                process.stdin.close()  # ends the child
            process.wait()
            for reader in readers:
                reader.join()


def _wait_for_result(
    messages: "queue.SimpleQueue[Message | None]", on_message: Callable[[Message | None], None]
) -> Message | None:
    """Pass on progress messages until the result. Returns None if the child died, raises what its work raised."""
    while True:
        try:
            message = messages.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            on_message(None)
            continue
        if message is None:
            return None
        if "raised" in message:
            raise RuntimeError(message["raised"])
        if "done" in message:
            result: Message = message["done"]
            return result
        on_message(message)


def serve(work: Callable[[Message, Report], Message], stop: Callable[[], None]) -> NoReturn:
    """Run in the child: read one request, do the work, send its result, and exit.

    `work` gets the request and a function that sends progress messages; it returns the result. `stop` is called in
    another thread if the work is to end early. RuntimeError, ValueError and OSError from `work` are sent to the parent.
    """
    for number in signal.SIGINT, signal.SIGTERM:  # the parent asks the child to stop
        signal.signal(number, signal.SIG_IGN)
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # anything that the work prints goes to standard error
    requests = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115  open for the life of the process
    request = json.loads(requests.readline())

    def send(message: Message) -> None:
        replies.write(json.dumps(message).encode() + b"\n")

    def watch_parent() -> None:
        if requests.readline() == _STOP:
            stop()
            requests.readline()
        os._exit(1)  # end of input: the parent is gone, or needs no result

    threading.Thread(target=watch_parent, daemon=True).start()
    try:
        send({"done": work(request, send)})
    except (RuntimeError, ValueError, OSError) as error:
        with contextlib.suppress(OSError):
            send({"raised": str(error)})
    os._exit(0)


def _start(module: str) -> "subprocess.Popen[bytes]":
    pipe = subprocess.PIPE
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", module], stdin=pipe, stdout=pipe, stderr=pipe, env=environment
        )
    except OSError as error:
        raise WorkerDied(f"cannot start another process: {error.strerror}") from None


def _send(process: "subprocess.Popen[bytes]", data: bytes) -> None:
    assert process.stdin
    with contextlib.suppress(OSError):  # the child has died; reading its output detects that
        process.stdin.write(data)
        process.stdin.flush()


def _read_messages(stream: IO[bytes], messages: "queue.SimpleQueue[Message | None]") -> None:
    """Put the child's messages into the queue, and None at their end."""
    with stream, contextlib.suppress(ValueError):  # a line cut off by the death of the child
        for line in stream:
            messages.put(json.loads(line))
    messages.put(None)


def _read_stderr(stream: IO[bytes], lines: deque[str], on_line: Callable[[str], None] | None) -> None:
    """Keep the last lines of the child's standard error, and call `on_line` with each."""
    with stream:
        for line in stream:
            text = line.decode(errors="replace")
            lines.append(text.strip())
            if on_line:
                on_line(text)


def _cause_of_death(stderr_lines: deque[str], status: int) -> str:
    """Why the child died: its fatal log line or exception, C++ or Python, without the place, or its exit status."""
    for line in reversed(stderr_lines):
        if fatal := _FATAL.match(line):
            return fatal["reason"][:200]
    if status > 0 and any(line.startswith("Traceback (") for line in stderr_lines):
        return stderr_lines[-1][:200]
    try:
        return f"its process was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"its process exited with status {status}"
