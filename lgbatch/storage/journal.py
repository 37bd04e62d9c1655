"""A file object for h5py whose changes are atomic: killed at any instant, the file is as the last commit left it.

HDF5 changes its metadata in place, so a process killed while it writes leaves a file that cannot be opened.
JournaledFile stands between h5py (driver `fileobj`) and the disk:

- Bytes beyond the committed end are written to the file in blocks of 1 MB: no committed data points to them.
- Changes within the committed end stay in memory until `commit`. It syncs the new bytes, writes the changed pages to
  a journal beside the file, syncs the journal, and only then changes the file.
- A journal found at opening is replayed if it is complete and belongs to the file, and dropped otherwise.

The file is an ordinary HDF5 file at all times, bulk data is written once, and the cost of a commit is proportional to
the changes. The open file is locked with flock, as HDF5 does it: only one process at a time can change it.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lgbatch.storage.commit_journal import Change, apply_changes, journal_path, recover_file, write_journal

if sys.platform != "win32":
    import fcntl

PAGE = 4096
BLOCK = 1 << 20
MAX_BLOCKS = 8
"""Blocks of new bytes kept in memory: HDF5 writes small pieces, the most recent ones in arbitrary order."""


class JournaledFile:
    """A binary file for h5py.File(..., driver="fileobj"). Opens an existing file for reading and writing."""

    def __init__(self, path: Path) -> None:
        """Open and lock the file, and replay or drop the journal of a killed process.

        Raises OSError; BlockingIOError if another process has the file open.
        """
        self._journal = journal_path(path)
        self._file = _open_locked(path)
        try:
            recover_file(self._file, self._journal)
        except OSError:
            self._file.close()
            raise
        self.write_error: OSError | None = None
        """First write error. Raised by commit(): raising inside an HDF5 callback corrupts HDF5."""
        self._committed = self._end = self._written = os.fstat(self._file.fileno()).st_size
        self._blocks: dict[int, memoryview] = {}
        """Bytes from `_written` to `_end`, by block number. A missing block has not been written and reads as zero."""
        self._pages: dict[int, bytearray] = {}
        """Changed pages within the committed end, by page number."""
        self._position = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position, as BinaryIO.seek."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._end}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def readinto(self, buffer: memoryview) -> int:
        """Fill the buffer from the position on, uncommitted changes included; return the number of bytes read."""
        start, view = self._position, memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._end - start))
        committed = max(0, min(count, self._committed - start)) if self._pages else 0
        in_file = max(0, min(count, self._written - start))
        self._read_at(start + committed, view[committed:in_file])
        self._read_blocks(start + in_file, view[in_file:count])
        self._read_pages(start, view[:committed])
        self._position += count
        return count

    def read(self, count: int = -1) -> bytes:
        """Read `count` bytes, or all up to the end if it is negative."""
        size = self._end - self._position if count < 0 else min(count, self._end - self._position)
        buffer = bytearray(max(0, size))
        self.readinto(memoryview(buffer))
        return bytes(buffer)

    def write(self, data: bytes | memoryview) -> int:
        """Write at the position: changes of committed bytes to memory, new bytes to blocks. Return len(data)."""
        view = memoryview(data).cast("B")
        size, start = len(view), self._position
        self._position += size
        if start < self._committed:
            changed = min(size, self._committed - start)
            for page, in_page, in_view in _split(start, changed, PAGE):
                self._page(page)[in_page.start : in_page.stop] = view[in_view.start : in_view.stop]
            view, start = view[changed:], start + changed
        if view:
            self._append(start, view)
        return size

    def truncate(self, size: int | None = None) -> int:
        """Set the end of the file, but never below the committed end. HDF5 calls this with the end of its data."""
        self._write_blocks()
        self._end = self._written = max(self._position if size is None else size, self._committed)
        try:
            self._resize(self._end)
        except OSError as error:
            self.write_error = self.write_error or error
        return self._end

    def flush(self) -> None:
        """Do nothing: HDF5 flushes at arbitrary times, and only `commit` may make changes durable."""

    def commit(self) -> None:
        """Make all writes so far durable, atomically.

        Raises OSError, also for an earlier write error (such as a full disk). Close the file then. It is as before
        the commit; but if the journal was complete already, the next opening finishes the commit.
        """
        self._write_blocks()
        if self.write_error:
            raise self.write_error
        os.fsync(self._file.fileno())
        changes = [self._change(number) for number in sorted(self._pages)]
        if changes:
            write_journal(self._journal, self._committed, self._end, changes)
        self._committed = self._end
        if changes:
            apply_changes(self._file, changes)
            self._journal.unlink()
        self._pages.clear()

    def close(self) -> None:
        """Close the file, without the uncommitted changes."""
        with contextlib.suppress(OSError, ValueError):  # ValueError: already closed
            self._resize(self._committed)
        self._file.close()

    def _append(self, start: int, view: memoryview) -> None:
        """Write bytes beyond the committed end."""
        self._end = max(self._end, start + len(view))
        if start < self._written:
            in_file = self._written - start
            self._write_at(start, view[:in_file])
            view, start = view[in_file:], self._written
        while view:
            number, first = divmod(start, BLOCK)
            block = self._blocks.get(number)
            if block is None:
                block = self._blocks[number] = memoryview(bytearray(BLOCK))
            size = min(len(view), BLOCK - first)
            block[first : first + size] = view[:size]
            view, start = view[size:], start + size
        if len(self._blocks) > MAX_BLOCKS:
            self._write_blocks(keep=MAX_BLOCKS)

    def _write_blocks(self, keep: int = 0) -> None:
        """Write all blocks to the file, except the last `keep`."""
        for number in sorted(self._blocks)[: len(self._blocks) - keep]:
            first, last = max(number * BLOCK, self._written), min((number + 1) * BLOCK, self._end)
            self._write_at(first, self._blocks.pop(number)[first - number * BLOCK : last - number * BLOCK])
            self._written = last

    def _resize(self, size: int) -> None:
        # Not if the size is right: ftruncate changes the modification time, by which stages detect changed inputs.
        if os.fstat(self._file.fileno()).st_size != size:
            os.ftruncate(self._file.fileno(), size)

    def _page(self, number: int) -> bytearray:
        """Return the changed page, read from the file at its first change."""
        page = self._pages.get(number)
        if page is None:
            page = self._pages[number] = bytearray(PAGE)
            start = number * PAGE
            self._read_at(start, memoryview(page)[: min(PAGE, self._committed - start)])
        return page

    def _change(self, number: int) -> Change:
        """Return a changed page, with its bytes in the file. The last page ends at the committed end."""
        offset = number * PAGE
        before = bytearray(min(PAGE, self._committed - offset))
        self._read_at(offset, memoryview(before))
        return Change(offset, bytes(before), bytes(self._pages[number][: len(before)]))

    def _read_blocks(self, start: int, view: memoryview) -> None:
        for number, in_block, in_view in _split(start, len(view), BLOCK):
            block = self._blocks.get(number)
            content = block[in_block.start : in_block.stop] if block else bytes(len(in_view))
            view[in_view.start : in_view.stop] = content

    def _read_pages(self, start: int, view: memoryview) -> None:
        """Read bytes within the committed end: changed pages from memory, the others from the file."""
        for number, in_page, in_view in _split(start, len(view), PAGE):
            page = self._pages.get(number)
            if page is not None:
                view[in_view.start : in_view.stop] = page[in_page.start : in_page.stop]
            else:
                self._read_at(number * PAGE + in_page.start, view[in_view.start : in_view.stop])

    def _read_at(self, offset: int, view: memoryview) -> None:
        self._file.seek(offset)
        while view:
            count = self._file.readinto(view)  # type: ignore[attr-defined]
            if not count:
                view[:] = bytes(len(view))  # beyond the end of the file
                return
            view = view[count:]

    def _write_at(self, offset: int, view: memoryview) -> None:
        try:
            self._file.seek(offset)
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            self.write_error = self.write_error or error


def recover(path: Path) -> None:
    """Finish or drop the commit of a killed process, if there is one. Raises OSError as JournaledFile."""
    with _open_locked(path) as file:
        recover_file(file, journal_path(path))


def _open_locked(path: Path) -> BinaryIO:
    file = path.open("r+b", buffering=0)
    if sys.platform != "win32":
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise
        except OSError:
            pass  # the file system has no locks
    return file


def _split(start: int, count: int, unit: int) -> Iterator[tuple[int, range, range]]:
    """Split bytes at multiples of `unit`: yield the unit's number, the range in the unit and the range in the bytes."""
    done = 0
    while done < count:
        number, first = divmod(start + done, unit)
        size = min(unit - first, count - done)
        yield number, range(first, first + size), range(done, done + size)
        done += size
