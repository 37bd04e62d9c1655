import contextlib
import io
import os
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
from lgbatch.storage.journal import JournaledFile, journal_path, recover

PAGE = 16


@pytest.fixture(autouse=True, scope="module")
def small_pages() -> Iterator[None]:
    """Pages and blocks of a few bytes: all there is to meet at their ends is met within a few steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "PAGE", PAGE)
        patch.setattr(journal, "BLOCK", 12)
        patch.setattr(journal, "BLOCKS", 2)
        yield


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A committed file of two and a half pages."""
    path = tmp_path / "file"
    path.write_bytes(os.urandom(PAGE * 5 // 2))
    return path


def change(file: JournaledFile, old: bytes) -> bytes:
    """Change two old pages and go on beyond the end, within its page and after; return what the file then holds."""
    new = bytearray(old)
    for start, data in (PAGE - 3, b"change"), (len(old) - 2, b"n" * 3 * PAGE):
        file.seek(start)
        assert file.write(data) == len(data)
        new[start : start + len(data)] = data
    return bytes(new)


def begin_commit(path: Path, folder: Path) -> tuple[bytes, bytes, bytes]:
    """The old bytes, the new ones, and the journal between them, as a kill just before the change leaves them."""
    old = path.read_bytes()
    file = JournaledFile(path)
    new = change(file, old)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "_apply", lambda file, body: shutil.copytree(path.parent, folder))
        file.commit()
    file.close()
    left = folder / path.name
    assert left.read_bytes()[: len(old)] == old and len(left.read_bytes()) == len(new)
    return old, new, journal_path(left).read_bytes()


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
def test_any_use_equals_a_plain_file(
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
    """Do one thing to the file and to its model."""
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


def test_changes_are_seen_but_not_on_disk_until_the_commit(path: Path) -> None:
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


def test_what_was_not_committed_is_dropped_on_close(path: Path) -> None:
    old = path.read_bytes()
    file = JournaledFile(path)
    change(file, old)
    file.close()
    assert path.read_bytes() == old


def test_a_torn_journal_is_dropped(path: Path, tmp_path: Path) -> None:
    old, new, whole = begin_commit(path, tmp_path / "left")
    left = tmp_path / "left" / path.name
    for length in range(len(whole)):
        journal_path(left).write_bytes(whole[:length])
        recover(left)
        assert left.read_bytes() == old + new[len(old) :]
        assert not journal_path(left).exists()
    journal_path(left).write_bytes(whole[:50] + bytes([whole[50] ^ 1]) + whole[51:])
    recover(left)
    assert left.read_bytes() == old + new[len(old) :]


def test_a_whole_journal_is_replayed_and_keeps_new_bytes(path: Path, tmp_path: Path) -> None:
    _, new, whole = begin_commit(path, tmp_path / "left")
    left = tmp_path / "left" / path.name
    for _ in range(2):  # and once more, for a kill during the replay
        journal_path(left).write_bytes(whole)
        file = JournaledFile(left)
        assert left.read_bytes() == file.read() == new
        assert not journal_path(left).exists()
        file.close()


def test_a_journal_of_what_is_not_there_is_dropped(path: Path, tmp_path: Path) -> None:
    begin_commit(path, tmp_path / "left")
    left = tmp_path / "left" / path.name
    left.write_bytes(b"another file")
    recover(left)
    assert left.read_bytes() == b"another file"
    assert not journal_path(left).exists()


def test_a_commit_that_fails_leaves_the_file_as_before(path: Path) -> None:
    old = path.read_bytes()
    journal_path(path).mkdir()
    file = JournaledFile(path)
    change(file, old)
    with pytest.raises(OSError):
        file.commit()
    file.close()
    assert path.read_bytes() == old


def test_a_commit_that_fails_after_its_journal_is_finished_at_the_next_opening(path: Path) -> None:
    file = JournaledFile(path)
    new = change(file, path.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "_apply", lambda file, body: os.close(-1))
        with pytest.raises(OSError):
            file.commit()
    file.close()
    recover(path)
    assert path.read_bytes() == new


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit")
def test_a_full_disk_leaves_the_file_as_before(path: Path) -> None:
    script = """
        import resource, sys
        from pathlib import Path
        from lgbatch.storage.journal import PAGE, JournaledFile
        path = Path(sys.argv[1])
        path.write_bytes(bytes(range(256)) * (PAGE * 5 // 2 // 256))
        old = path.read_bytes()
        def fails(step):
            try:
                step()
            except OSError as error:
                return error.strerror == "File too large"
        file = JournaledFile(path)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3 * PAGE, 3 * PAGE))
        file.write(bytes(len(old)))  # three pages, which do not fit into the journal
        assert fails(file.commit)
        assert file.failure is None
        file.seek(4 * PAGE)
        file.write(b"more")  # no exception amid what HDF5 does
        file.truncate(4 * PAGE)
        assert file.failure and fails(file.commit)
        file.close()
        assert path.read_bytes() == old
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script), str(path)], check=True)
    assert not journal_path(path).exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
def test_only_one_may_have_it_open(path: Path) -> None:
    file = JournaledFile(path)
    journal_path(path).write_bytes(b"its commit")
    with pytest.raises(BlockingIOError):
        JournaledFile(path)
    with pytest.raises(BlockingIOError):
        recover(path)
    assert journal_path(path).read_bytes() == b"its commit"
    file.close()
    JournaledFile(path).close()
    assert not journal_path(path).exists()


def test_what_is_not_there_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        JournaledFile(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        JournaledFile(tmp_path)
