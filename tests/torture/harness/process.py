"""Runs lgbatch commands as processes: the real command, or forks of server.py, which skip the start-up time."""

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lgbatch.kernels.library import ISA_VARIABLE, NO_KERNELS

COMMAND = (sys.executable, "-m", "lgbatch")
TIMEOUT = 60
"""Seconds after which a command counts as hung."""

Argument = str | bytes | Path

_SERVER = Path(__file__).with_name("server.py")


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    status: int
    """Exit status as in subprocess: negative if a signal ended the command."""
    out: str
    err: str
    hung: bool = False

    def problem(self, *, lines: int = 1) -> str | None:
        """How the command broke the rules that hold for any input: no hang, crash, traceback or long message.

        At most `lines` lines on standard error are allowed. Returns None if all is well.
        """
        if self.hung:
            return f"did not end within {TIMEOUT} s"
        if self.status < 0:
            return f"crashed with {signal.Signals(-self.status).name}"
        if self.status not in (0, 1, 2):
            return f"ended with status {self.status}"
        if "Traceback" in self.err or "bug in lgbatch" in self.err or "Exception ignored" in self.err:
            return "showed a traceback"
        printed = [line for line in self.err.splitlines() if line.strip()]
        if len(printed) > lines:
            return f"printed {len(printed)} lines"
        if self.status == 2 and not printed:
            return "ended with status 2 without a message"
        return None


class Server:
    """Runs commands through server.py; a context manager. Threads may share one: it runs one command at a time."""

    def __init__(self, preload: Path | None = None) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="lgbatch-torture-")
        self._folder = Path(self._scratch.name)
        self._number = itertools.count()
        self._lock = threading.Lock()
        environment = dict(os.environ) | {ISA_VARIABLE: NO_KERNELS}  # ONNX Runtime runs the stand-in models
        if preload:
            environment["LD_PRELOAD"] = str(preload)
        self._process = subprocess.Popen(
            [sys.executable, _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(30)
        assert self._process.stdout
        self._process.stdout.close()
        self._scratch.cleanup()

    def run(
        self,
        *arguments: Argument,
        folder: Path | None = None,
        preamble: str = "",
        fault: Sequence[object] | None = None,
        environment: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT,
    ) -> Done:
        """Run a command in `folder`.

        The process runs the Python code `preamble` before the command. `fault` holds the arguments of faults_arm.
        """
        with self._lock:
            number = next(self._number)
            out, err = self._folder / f"{number}.out", self._folder / f"{number}.err"
            process = self._start(
                arguments=[os.fsencode(argument).hex() for argument in arguments],
                folder=str(folder or self._folder),
                out=str(out),
                err=str(err),
                preamble=preamble,
                fault=fault,
                environment=dict(environment or {}),
            )
            status, hung = self._wait(process, timeout)
            texts = [path.read_text(errors="replace") for path in (out, err)]
            out.unlink()
            err.unlink()
            return Done(status, *texts, hung=hung)

    def _start(self, **request: object) -> int:
        """Send a request; returns the number of its process."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def _wait(self, process: int, timeout: float) -> tuple[int, bool]:
        """Wait for a process and kill it after `timeout` seconds; returns the exit status, and whether it hung."""
        assert self._process.stdout
        hung = threading.Event()

        def stop() -> None:
            hung.set()
            os.kill(process, signal.SIGKILL)

        timer = threading.Timer(timeout, stop)
        timer.start()
        try:
            status = os.waitstatus_to_exitcode(int(self._process.stdout.readline()))
        finally:
            timer.cancel()
        return status, hung.is_set()
