"""JournaledFile behaves as a plain file, and its commits are atomic."""

import contextlib
import io
import os
import random
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lgbatch.storage import journal
from lgbatch.storage.commit_journal import journal_path
from lgbatch.storage.journal import JournaledFile, recover

PAGE = 16


@pytest.fixture(autouse=True, scope="module")
def small_pages() -> Iterator[None]:
    """Use pages and blocks of a few bytes, so that short tests reach all their boundaries."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "PAGE", PAGE)
        patch.setattr(journal, "BLOCK", 12)
        patch.setattr(journal, "MAX_BLOCKS", 2)
        yield


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A committed file of two and a half pages."""
    path = tmp_path / "file"
    path.write_bytes(os.urandom(PAGE * 5 // 2))
    return path


def change(file: JournaledFile, old: bytes) -> bytes:
    """Change two old pages and append within the last page and beyond it; return the new content."""
    new = bytearray(old)
    for start, data in (PAGE - 3, b"change"), (len(old) - 2, b"n" * 3 * PAGE):
        file.seek(start)
        assert file.write(data) == len(data)
        new[start : start + len(data)] = data
    return bytes(new)


def begin_commit(path: Path, folder: Path) -> tuple[bytes, bytes, bytes]:
    """Copy the file and its journal to `folder` as a kill during a commit leaves them; return old, new and journal."""
    old = path.read_bytes()
    file = JournaledFile(path)
    new = change(file, old)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "apply_changes", lambda file, changes: shutil.copytree(path.parent, folder))
        file.commit()
    file.close()
    killed = folder / path.name
    assert killed.read_bytes()[: len(old)] == old and len(killed.read_bytes()) == len(new)
    return old, new, journal_path(killed).read_bytes()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 90), st.binary(max_size=50)),
        st.tuples(st.just("read"), st.integers(0, 90), st.integers(-1, 60)),
        st.tuples(st.just("truncate"), st.integers(0, 120), st.just(0)),
        st.tuples(st.sampled_from(["commit", "reopen"]), st.just(0), st.just(0)),
    ),
    max_size=20,
)


@given(start=st.binary(max_size=60), steps=STEPS)
@settings(max_examples=150, deadline=None)
def test_any_sequence_of_calls_equals_a_plain_file(
    tmp_path_factory: pytest.TempPathFactory, start: bytes, steps: list[tuple[str, int, int | bytes]]
) -> None:
    path = tmp_path_factory.mktemp("model") / "file"
    path.write_bytes(start)
    model, committed = bytearray(start), start
    with contextlib.ExitStack() as opened:
        file = opened.enter_context(contextlib.closing(JournaledFile(path)))
        for step, position, argument in steps:
            if step == "commit":
                file.commit()
                committed = bytes(model)
            elif step == "reopen":
                opened.close()
                assert path.read_bytes() == committed
                file, model = opened.enter_context(contextlib.closing(JournaledFile(path))), bytearray(committed)
            else:
                check_step(file, model, len(committed), step, position, argument)
            assert path.read_bytes()[: len(committed)] == committed
            assert file.seek(0, io.SEEK_END) == len(model)
            file.seek(0)
            assert file.read() == model


def check_step(
    file: JournaledFile, model: bytearray, committed: int, step: str, position: int, argument: int | bytes
) -> None:
    """Apply one step to the file and to its model, and compare."""
    if isinstance(argument, bytes):
        assert file.seek(position) == file.tell() == position
        assert file.write(argument) == len(argument)
        assert file.tell() == position + len(argument)
        if argument:
            model.extend(bytes(max(0, position - len(model))))
            model[position : position + len(argument)] = argument
    elif step == "read":
        file.seek(7)
        assert file.seek(position - 7, io.SEEK_CUR) == position
        assert file.read(argument) == (model[position:] if argument < 0 else model[position : position + argument])
    else:
        end = max(position, committed)
        assert file.truncate(position) == end
        model[end:] = bytes(max(0, end - len(model)))


def test_uncommitted_changes_are_read_but_not_on_disk(path: Path) -> None:
    old = path.read_bytes()
    file = JournaledFile(path)
    new = change(file, old)
    file.seek(0)
    assert file.read() == new
    assert path.read_bytes()[: len(old)] == old
    file.commit()
    assert path.read_bytes() == new
    assert not journal_path(path).exists()
    file.close()


def test_close_drops_uncommitted_changes(path: Path) -> None:
    old = path.read_bytes()
    file = JournaledFile(path)
    change(file, old)
    file.close()
    assert path.read_bytes() == old


def test_an_incomplete_journal_is_dropped(path: Path, tmp_path: Path) -> None:
    old, new, complete = begin_commit(path, tmp_path / "killed")
    killed = tmp_path / "killed" / path.name
    for length in range(len(complete)):
        journal_path(killed).write_bytes(complete[:length])
        recover(killed)
        assert killed.read_bytes() == old + new[len(old) :]
        assert not journal_path(killed).exists()
    journal_path(killed).write_bytes(complete[:50] + bytes([complete[50] ^ 1]) + complete[51:])
    recover(killed)
    assert killed.read_bytes() == old + new[len(old) :]


def test_a_complete_journal_is_replayed_and_keeps_new_bytes(path: Path, tmp_path: Path) -> None:
    _, new, complete = begin_commit(path, tmp_path / "killed")
    killed = tmp_path / "killed" / path.name
    for _ in range(2):  # twice, as after a kill during the replay
        journal_path(killed).write_bytes(complete)
        file = JournaledFile(killed)
        assert killed.read_bytes() == file.read() == new
        assert not journal_path(killed).exists()
        file.close()


def test_the_journal_of_another_file_is_dropped(path: Path, tmp_path: Path) -> None:
    begin_commit(path, tmp_path / "killed")
    killed = tmp_path / "killed" / path.name
    journal_of_the_other = journal_path(killed).read_bytes()
    for another in b"another file", random.Random(0).randbytes(20 * PAGE):
        killed.write_bytes(another)
        journal_path(killed).write_bytes(journal_of_the_other)
        recover(killed)
        assert killed.read_bytes() == another
        assert not journal_path(killed).exists()


def test_the_journal_of_a_later_state_is_not_replayed_onto_a_copy_of_an_earlier_one(path: Path, tmp_path: Path) -> None:
    backup = path.read_bytes()
    file = JournaledFile(path)
    file.seek(0)
    file.write(b"newer")
    file.commit()
    file.close()
    begin_commit(path, tmp_path / "killed")
    killed = tmp_path / "killed" / path.name
    padded = backup + bytes(10 * PAGE)
    killed.write_bytes(padded)
    recover(killed)
    assert killed.read_bytes() == padded


def test_a_commit_killed_within_any_byte_of_its_changes_is_finished(path: Path, tmp_path: Path) -> None:
    old, new, complete = begin_commit(path, tmp_path / "killed")
    killed = tmp_path / "killed" / path.name
    for length in range(len(old)):
        killed.write_bytes(new[:length] + old[length:] + new[len(old) :])
        journal_path(killed).write_bytes(complete)
        recover(killed)
        assert killed.read_bytes() == new


def test_a_failed_commit_leaves_the_file_unchanged(path: Path) -> None:
    old = path.read_bytes()
    journal_path(path).mkdir()
    file = JournaledFile(path)
    change(file, old)
    with pytest.raises(OSError):
        file.commit()
    file.close()
    assert path.read_bytes() == old


def test_a_commit_that_fails_after_its_journal_is_complete_is_finished_at_the_next_opening(path: Path) -> None:
    file = JournaledFile(path)
    new = change(file, path.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "apply_changes", lambda file, changes: os.close(-1))
        with pytest.raises(OSError):
            file.commit()
    file.close()
    recover(path)
    assert path.read_bytes() == new


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no file size limit")
def test_a_full_disk_leaves_the_file_unchanged(path: Path) -> None:
    script = """
        import resource, sys
        from pathlib import Path
        from lgbatch.storage.journal import PAGE, JournaledFile
        path = Path(sys.argv[1])
        path.write_bytes(bytes(range(256)) * (PAGE * 5 // 2 // 256))
        old = path.read_bytes()
        def fails(commit):
            try:
                commit()
            except OSError as error:
                return error.strerror == "File too large"
        file = JournaledFile(path)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3 * PAGE, 3 * PAGE))
        file.write(bytes(len(old)))  # three pages: the journal exceeds the limit
        assert fails(file.commit)
        assert file.write_error is None
        file.seek(4 * PAGE)
        file.write(b"more")  # raises nothing, as HDF5 requires
        file.truncate(4 * PAGE)
        assert file.write_error and fails(file.commit)
        file.close()
        assert path.read_bytes() == old
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script), str(path)], check=True)
    assert not journal_path(path).exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no flock")
def test_the_open_file_is_locked(path: Path) -> None:
    file = JournaledFile(path)
    journal_path(path).write_bytes(b"commit of the other")
    with pytest.raises(BlockingIOError):
        JournaledFile(path)
    with pytest.raises(BlockingIOError):
        recover(path)
    assert journal_path(path).read_bytes() == b"commit of the other"
    file.close()
    JournaledFile(path).close()
    assert not journal_path(path).exists()


def test_a_missing_file_and_a_folder_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        JournaledFile(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        JournaledFile(tmp_path)
