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
from lgbatch.workspace.signals import Interrupted, deferred, handled, until_stopped
from tests.helpers import slow_cli, synthetic

SLOW = slow_cli.COMMAND
NUMBERS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
PHOTOS = 30


@pytest.fixture(autouse=True)
def foreground() -> Iterator[None]:
    """Ctrl-C as in a shell's foreground: in the background it is ignored, here and in what is started."""
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
    """A command, in the middle of its loop."""
    if command == "match":
        assert subprocess.run([*SLOW, "0", *arguments(files, "extract")], capture_output=True).returncode == 0
        with FeatureStore(files.features) as store:
            write_pairs(files.pairs, exhaustive(store.names()))
    other = subprocess.Popen(
        [*SLOW, seconds, *arguments(files, command)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    made = files.features if command == "extract" else files.matches
    deadline = time.time() + 60
    while not made.exists() and time.time() < deadline:
        time.sleep(0.02)
    time.sleep(1)
    return other


def count(files: Workspace, command: str) -> int:
    if command == "extract":
        with FeatureStore(files.features) as store:
            return len(store.names())
    with MatchStore(files.matches) as matches:
        return len(list(matches.groups()))


@pytest.mark.parametrize("command", ["extract", "match"])
@pytest.mark.parametrize(("number", "status"), NUMBERS)
def test_the_first_keeps_what_is_in_flight(files: Workspace, command: str, number: int, status: int) -> None:
    with start(files, command, "0.15" if command == "extract" else "1") as other:
        other.send_signal(number)
        told, errors = other.communicate()
    assert (other.returncode, told) == (status, "")
    assert "stopping after the batch in flight" in errors
    assert errors.splitlines()[-1] == "lgbatch: interrupted; run the same command again to continue"
    total = PHOTOS if command == "extract" else PHOTOS * (PHOTOS - 1) // 2
    done = count(files, command)
    assert 0 < done < total  # all of it later than the last timed commit
    again = subprocess.run([*SLOW, "0", *arguments(files, command)], capture_output=True, text=True)
    assert again.returncode == 0 or "import" in again.stderr, again.stderr
    assert count(files, command) == total


@pytest.mark.parametrize(("number", "status"), NUMBERS)
def test_mapping_ends_at_once_and_leaves_no_draft(tmp_path: Path, number: int, status: int) -> None:
    source, files = synthetic.synthetic(tmp_path, 40), Workspace(tmp_path)
    synthetic.import_source(files.database, source)
    FeatureStore(files.features, append={}).close()
    run = [sys.executable, "-m", "lgbatch", "reconstruct", "-w", str(tmp_path), "--images", str(tmp_path / "images")]
    draft = tmp_path / "sparse.partial"
    with subprocess.Popen(run, stderr=subprocess.PIPE, text=True) as other:
        while not draft.exists() and other.poll() is None:
            time.sleep(0.005)
        other.send_signal(number)
        errors = other.communicate()[1]
    assert other.returncode == status, errors
    assert errors == "lgbatch: interrupted; run the same command again to continue\n"
    assert not draft.exists() and not files.sparse.exists() and not (tmp_path / ".lgbatch.lock").exists()


def test_the_second_leaves_at_once(files: Workspace) -> None:
    with start(files, "extract", "5") as other:
        begin = time.time()
        other.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert other.poll() is None
        other.send_signal(signal.SIGINT)
        errors = other.communicate()[1]
    assert time.time() - begin < 4
    assert other.returncode == 130
    assert errors.endswith("\n\n") and "Traceback" not in errors
    with FeatureStore(files.features) as store:
        assert store.names() == []


def test_ctrl_c_that_is_ignored_stays_ignored(files: Workspace) -> None:
    script = f"trap '' INT; exec {shlex.join(SLOW)} 0.1 \"$@\""
    run = ["sh", "-c", script, "sh", *arguments(files, "extract")]
    with subprocess.Popen(run, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        while not files.features.exists():
            time.sleep(0.02)
        time.sleep(0.5)
        other.send_signal(signal.SIGINT)
        other.communicate()
    assert other.returncode == 0
    assert count(files, "extract") == PHOTOS


@pytest.mark.parametrize(("number", "status"), NUMBERS)
def test_outside_a_loop_the_first_one_acts_at_once(number: signal.Signals, status: int) -> None:
    with pytest.raises(Interrupted) as error, handled():
        os.kill(os.getpid(), number)
        time.sleep(5)
    assert error.value.status == status
    with pytest.raises(Interrupted), handled():  # the one before is forgotten
        os.kill(os.getpid(), number)
        time.sleep(5)


def test_a_loop_ends_and_says_so_at_its_end() -> None:
    seen = []
    with pytest.raises(Interrupted), handled():
        with deferred():
            for item in until_stopped(range(100)):
                if item == 3:
                    os.kill(os.getpid(), signal.SIGTERM)
                seen.append(item)
            seen.append(-1)
        seen.append(-2)
    assert seen == [0, 1, 2, 3, -1]
    assert list(until_stopped(range(3))) == [0, 1, 2]


def test_a_library_that_sets_its_own_handler_is_overruled() -> None:
    script = (
        "import os, signal, zlib\n"
        "from lgbatch.workspace.signals import *; from lgbatch.colmap.log import colmap_log_off\n"
        "with handled():\n"
        "    with colmap_log_off():\n"
        "        try: os.kill(os.getpid(), signal.SIGTERM); signal.pause()\n"
        "        except Interrupted as error: print(error.status)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "143\n", "")


def test_handlers_are_put_back_and_left_alone_elsewhere() -> None:
    def own(number: int, frame: object) -> None:
        pass

    before = signal.signal(signal.SIGTERM, own)
    try:
        with handled():
            assert signal.getsignal(signal.SIGTERM) is not own
        assert signal.getsignal(signal.SIGTERM) is own
        found = []

        def elsewhere() -> None:
            with handled():
                found.append(signal.getsignal(signal.SIGTERM))

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert found == [own]
        with deferred():  # as a library's user has it
            assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)
