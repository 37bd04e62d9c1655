import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from lgbatch.pairing.candidates import exhaustive
from lgbatch.pairing.pairs_file import write_pairs
from lgbatch.storage.features import FeatureStore
from lgbatch.storage.matches import MatchStore
from lgbatch.workspace.folder import Workspace
from lgbatch.workspace.signals import Interrupted, deferred, handle_signals, until_stopped
from tests.helpers import slow_cli, synthetic

SLOW = slow_cli.COMMAND
SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
PHOTOS = 30


@pytest.fixture(autouse=True)
def foreground() -> Iterator[None]:
    """Handle Ctrl-C as in the foreground of a shell: tests may run in the background, where it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def files(tmp_path: Path) -> Workspace:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(PHOTOS):
        cv2.imwrite(str(folder / f"{i:02}.png"), np.zeros((48, 64, 3), np.uint8))
    return Workspace(tmp_path / "out")


def arguments(files: Workspace, command: str) -> list[str]:
    if command == "extract":
        return ["extract", str(files.root.parent / "photos"), "-w", str(files.root), "--threads", "1"]
    return ["match", "-w", str(files.root), "--threads", "1"]


def start(files: Workspace, command: str, seconds: str) -> "subprocess.Popen[str]":
    """Start a command and wait until it is in the middle of its loop."""
    if command == "match":
        assert subprocess.run([*SLOW, "0", *arguments(files, "extract")], capture_output=True).returncode == 0
        with FeatureStore(files.features) as store:
            write_pairs(files.pairs, exhaustive(store.names()))
    process = subprocess.Popen(
        [*SLOW, seconds, *arguments(files, command)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    store_path = files.features if command == "extract" else files.matches
    deadline = time.time() + 60
    while not store_path.exists() and time.time() < deadline:
        time.sleep(0.02)
    time.sleep(1)
    return process


def count(files: Workspace, command: str) -> int:
    if command == "extract":
        with FeatureStore(files.features) as store:
            return len(store.names())
    with MatchStore(files.matches) as matches:
        return len(list(matches.groups()))


@pytest.mark.parametrize("command", ["extract", "match"])
@pytest.mark.parametrize(("number", "status"), SIGNALS)
def test_the_first_signal_keeps_the_batch_in_flight(files: Workspace, command: str, number: int, status: int) -> None:
    with start(files, command, "0.15" if command == "extract" else "1") as process:
        process.send_signal(number)
        stdout, stderr = process.communicate()
    assert (process.returncode, stdout) == (status, "")
    assert "stopping after the batch in flight" in stderr
    assert stderr.splitlines()[-1] == "lgbatch: interrupted; run the same command again to continue"
    total = PHOTOS if command == "extract" else PHOTOS * (PHOTOS - 1) // 2
    committed = count(files, command)
    assert 0 < committed < total  # the batches since the last timed commit included
    again = subprocess.run([*SLOW, "0", *arguments(files, command)], capture_output=True, text=True)
    assert again.returncode == 0 or "import" in again.stderr, again.stderr
    assert count(files, command) == total


def test_photos_at_once_are_kept_after_a_signal_and_no_other_one_begins(files: Workspace) -> None:
    command = [*SLOW, "0.5", *arguments(files, "extract"), "--threads", "3"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        while not files.features.exists():
            time.sleep(0.02)
        time.sleep(1.2)
        begin = time.time()
        process.send_signal(signal.SIGINT)
        stderr = process.communicate()[1]
    assert process.returncode == 130 and "stopping after the batch in flight" in stderr
    assert time.time() - begin < 3
    with FeatureStore(files.features) as store:
        names = store.names()
    assert names == [f"{number:02}.png" for number in range(len(names))]
    assert 3 <= len(names) <= 12


@pytest.mark.parametrize(("number", "status"), SIGNALS)
def test_mapping_stops_at_once_and_leaves_no_draft(tmp_path: Path, number: int, status: int) -> None:
    source, files = synthetic.synthetic(tmp_path, 40), Workspace(tmp_path)
    synthetic.import_source(files.database, source)
    FeatureStore(files.features, append={}).close()
    options = ["-w", str(tmp_path), "--images", str(tmp_path / "images")]
    command = [sys.executable, "-m", "lgbatch", "reconstruct", *options]
    draft = tmp_path / "sparse.partial"
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not draft.exists() and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(number)
        stderr = process.communicate()[1]
    assert process.returncode == status, stderr
    assert stderr == "lgbatch: interrupted; run the same command again to continue\n"
    assert not draft.exists() and not files.sparse.exists() and not (tmp_path / ".lgbatch.lock").exists()


def test_a_second_signal_exits_at_once(files: Workspace) -> None:
    with start(files, "extract", "5") as process:
        begin = time.time()
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        stderr = process.communicate()[1]
    assert time.time() - begin < 4
    assert process.returncode == 130
    assert stderr.endswith("\n\n") and "Traceback" not in stderr
    with FeatureStore(files.features) as store:
        assert store.names() == []


def test_an_ignored_ctrl_c_stays_ignored(files: Workspace) -> None:
    script = f"trap '' INT; exec {shlex.join(SLOW)} 0.1 \"$@\""
    command = ["sh", "-c", script, "sh", *arguments(files, "extract")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        while not files.features.exists():
            time.sleep(0.02)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert process.returncode == 0
    assert count(files, "extract") == PHOTOS


@pytest.mark.parametrize(("number", "status"), SIGNALS)
def test_a_signal_outside_a_deferred_block_raises_at_once(number: signal.Signals, status: int) -> None:
    with pytest.raises(Interrupted) as error, handle_signals():
        os.kill(os.getpid(), number)
        time.sleep(5)
    assert error.value.status == status
    with pytest.raises(Interrupted), handle_signals():  # the earlier signal does not count
        os.kill(os.getpid(), number)
        time.sleep(5)


def test_a_deferred_block_stops_its_loop_and_raises_at_its_end() -> None:
    seen = []
    with pytest.raises(Interrupted), handle_signals():
        with deferred():
            for item in until_stopped(range(100)):
                if item == 3:
                    os.kill(os.getpid(), signal.SIGTERM)
                seen.append(item)
            seen.append(-1)
        seen.append(-2)
    assert seen == [0, 1, 2, 3, -1]
    assert list(until_stopped(range(3))) == [0, 1, 2]


def test_handlers_replaced_by_a_library_are_reinstalled() -> None:
    script = (
        "import os, signal, zlib\n"
        "from lgbatch.workspace.signals import *; from lgbatch.colmap.log import colmap_log_off\n"
        "with handle_signals():\n"
        "    with colmap_log_off():\n"
        "        try: os.kill(os.getpid(), signal.SIGTERM); signal.pause()\n"
        "        except Interrupted as error: print(error.status)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "143\n", "")


def test_handlers_are_restored_and_other_threads_change_none() -> None:
    def custom_handler(number: int, frame: object) -> None:
        pass

    before = signal.signal(signal.SIGTERM, custom_handler)
    try:
        with handle_signals():
            assert signal.getsignal(signal.SIGTERM) is not custom_handler
        assert signal.getsignal(signal.SIGTERM) is custom_handler
        handlers = []

        def handle_in_thread() -> None:
            with handle_signals():
                handlers.append(signal.getsignal(signal.SIGTERM))

        thread = threading.Thread(target=handle_in_thread)
        thread.start()
        thread.join()
        assert handlers == [custom_handler]
        with deferred():  # as when lgbatch is used as a library
            assert signal.getsignal(signal.SIGTERM) is custom_handler
    finally:
        signal.signal(signal.SIGTERM, before)
