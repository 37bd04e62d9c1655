"""Commands of lgbatch as processes: the real command, or a fork of server.py, which starts in no time."""

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

HERE = Path(__file__).parent
COMMAND = (sys.executable, "-m", "lgbatch")
SECONDS = 60
"""What takes longer hangs."""

Argument = str | bytes | Path


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    status: int
    """As subprocess tells it: negative when a signal ended it."""
    out: str
    err: str
    hung: bool = False

    def problem(self, *, lines: int = 1) -> str | None:
        """What no command may do, whatever it is given: hang, crash, show a traceback, or more than so many lines."""
        if self.hung:
            return f"did not end within {SECONDS} s"
        if self.status < 0:
            return f"crashed with {signal.Signals(-self.status).name}"
        if self.status not in (0, 1, 2):
            return f"ended with status {self.status}"
        if "Traceback" in self.err or "bug in lgbatch" in self.err or "Exception ignored" in self.err:
            return "showed a traceback"
        said = [line for line in self.err.splitlines() if line.strip()]
        if len(said) > lines:
            return f"said {len(said)} lines"
        if self.status == 2 and not said:
            return "ended with status 2 and said nothing"
        return None


class Server:
    """Runs commands by server.py; a context manager. Several threads can use one, one after the other."""

    def __init__(self, preload: Path | None = None) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="lgbatch-torture-")
        self._folder = Path(self._scratch.name)
        self._number = itertools.count()
        self._lock = threading.Lock()
        environment = dict(os.environ) | ({"LD_PRELOAD": str(preload)} if preload else {})
        self._process = subprocess.Popen(
            [sys.executable, HERE / "server.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
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
        first: str = "",
        fault: Sequence[object] | None = None,
        environment: Mapping[str, str] | None = None,
        seconds: float = SECONDS,
    ) -> Done:
        """Run a command. `first` is Python that the process runs before; `fault` what faults_arm takes."""
        with self._lock:
            number = next(self._number)
            out, err = self._folder / f"{number}.out", self._folder / f"{number}.err"
            request = {
                "arguments": [os.fsencode(argument).hex() for argument in arguments],
                "folder": str(folder or self._folder),
                "out": str(out),
                "err": str(err),
                "first": first,
                "fault": fault,
                "environment": dict(environment or {}),
            }
            assert self._process.stdin and self._process.stdout
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            process = int(self._process.stdout.readline())
            hung = threading.Event()

            def stop() -> None:
                hung.set()
                os.kill(process, signal.SIGKILL)

            timer = threading.Timer(seconds, stop)
            timer.start()
            try:
                status = os.waitstatus_to_exitcode(int(self._process.stdout.readline()))
            finally:
                timer.cancel()
            texts = [path.read_text(errors="replace") for path in (out, err)]
            out.unlink()
            err.unlink()
            return Done(status, *texts, hung=hung.is_set())
