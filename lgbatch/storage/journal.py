"""A file that is changed in whole steps: killed at any instant, it is as the last `commit` left it.

HDF5 changes its metadata in place, so that a process killed while it writes leaves a file that nothing can open.
This file object stands between h5py (driver `fileobj`) and the disk:

- bytes beyond the committed end go to the file, a few megabytes at a time: nothing that is committed points there;
- bytes within it are kept in memory until `commit`, which syncs the new bytes, writes the changed ones to a journal
  beside the file, syncs that, and only then changes the file;
- a journal that is found when the file is opened was complete (it is replayed) or was not (it is dropped).

So the file is one ordinary HDF5 file at all times, bulk data is written once, and a commit costs what changed.
One process at a time changes a file: it is locked while it is open here, in the way that HDF5 locks its own.
"""

import contextlib
import os
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lgbatch.storage.durable import write_synced

if sys.platform != "win32":
    import fcntl

PAGE = 4096
BLOCK = 1 << 20
BLOCKS = 8
"""New bytes are kept in memory in so many blocks: HDF5 writes them in small pieces, the last ones in no order."""
_HEADER = struct.Struct("<8sQQ")
_MAGIC = b"LGBJRNL1"
_ENDS = struct.Struct("<QQ")  # of the file before and after the commit; then come pages, each after its number


class JournaledFile:
    """A binary file for h5py.File(..., driver="fileobj"); an existing file, opened for reading and writing."""

    def __init__(self, path: Path) -> None:
        """Open; a journal that a killed process left is replayed or dropped.

        Raises OSError; it is BlockingIOError while another process has the file open.
        """
        self._journal = journal_path(path)
        self._file = _open_locked(path)
        try:
            _settle(self._file, self._journal)
        except OSError:
            self._file.close()
            raise
        self.failure: OSError | None = None
        """What the first write met that failed. Only the commit raises it: an exception amid HDF5's work wrecks it."""
        self._committed = self._end = self._written = os.fstat(self._file.fileno()).st_size
        self._blocks: dict[int, memoryview] = {}
        """New bytes, those from `_written` on; what is not there has not been written and is zero."""
        self._pages: dict[int, bytearray] = {}
        self._position = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of any binary file."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._end}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        """As of any binary file."""
        return self._position

    def readinto(self, buffer: memoryview) -> int:
        """As of any binary file; changes that are not committed yet are seen."""
        start, view = self._position, memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._end - start))
        old = max(0, min(count, self._committed - start)) if self._pages else 0
        in_file = max(0, min(count, self._written - start))
        self._read_at(start + old, view[old:in_file])
        for block, inside, outside in _split(start + in_file, count - in_file, BLOCK):
            held = self._blocks.get(block)
            new = held[inside.start : inside.stop] if held else bytes(len(outside))
            view[in_file + outside.start : in_file + outside.stop] = new
        for page, inside, outside in _split(start, old, PAGE):
            kept = self._pages.get(page)
            if kept is not None:
                view[outside.start : outside.stop] = kept[inside.start : inside.stop]
            else:
                self._read_at(page * PAGE + inside.start, view[outside.start : outside.stop])
        self._position += count
        return count

    def read(self, count: int = -1) -> bytes:
        """As of any binary file."""
        size = self._end - self._position if count < 0 else min(count, self._end - self._position)
        buffer = bytearray(max(0, size))
        self.readinto(memoryview(buffer))
        return bytes(buffer)

    def write(self, data: bytes | memoryview) -> int:
        """New bytes go to the file, in time; changed ones are kept for the commit."""
        view = memoryview(data).cast("B")
        size, start = len(view), self._position
        self._position += size
        if start < self._committed:
            changed = min(size, self._committed - start)
            for page, inside, outside in _split(start, changed, PAGE):
                self._page(page)[inside.start : inside.stop] = view[outside.start : outside.stop]
            view, start = view[changed:], start + changed
        if view:
            self._append(start, view)
        return size

    def truncate(self, size: int | None = None) -> int:
        """HDF5 calls this with the end of its data; what is committed is never cut off."""
        self._release()
        self._end = self._written = max(self._position if size is None else size, self._committed)
        try:
            self._cut(self._end)
        except OSError as error:
            self.failure = self.failure or error
        return self._end

    def flush(self) -> None:
        """Nothing: only `commit` makes changes last, and HDF5 flushes when it likes."""

    def commit(self) -> None:
        """Make everything written so far last.

        Raises OSError (disk full, say), also of writes before. The file is to be closed then, and is as before: or,
        if the journal was whole already, as it should have become, once it has been opened again.
        """
        self._release()
        if self.failure:
            raise self.failure
        os.fsync(self._file.fileno())
        body = b""
        if self._pages:
            pages = (struct.pack("<Q", page) + bytes(self._pages[page]) for page in sorted(self._pages))
            body = _ENDS.pack(self._committed, self._end) + b"".join(pages)
            write_synced(self._journal, _HEADER.pack(_MAGIC, len(body), zlib.crc32(body)) + body)
        self._committed = self._end
        if body:
            _apply(self._file, body)
            self._journal.unlink()
        self._pages.clear()

    def close(self) -> None:
        """Close the file. What was not committed is dropped."""
        with contextlib.suppress(OSError, ValueError):  # ValueError: it is closed already
            self._cut(self._committed)
        self._file.close()

    def _append(self, start: int, view: memoryview) -> None:
        self._end = max(self._end, start + len(view))
        if start < self._written:
            late = self._written - start
            self._write_at(start, view[:late])
            view, start = view[late:], self._written
        while view:
            number, first = divmod(start, BLOCK)
            block = self._blocks.get(number)
            if block is None:
                block = self._blocks[number] = memoryview(bytearray(BLOCK))
            size = min(len(view), BLOCK - first)
            block[first : first + size] = view[:size]
            view, start = view[size:], start + size
        if len(self._blocks) > BLOCKS:
            self._release(keep=BLOCKS)

    def _release(self, keep: int = 0) -> None:
        """Write the first blocks to the file."""
        for number in sorted(self._blocks)[: len(self._blocks) - keep]:
            first, last = max(number * BLOCK, self._written), min((number + 1) * BLOCK, self._end)
            self._write_at(first, self._blocks.pop(number)[first - number * BLOCK : last - number * BLOCK])
            self._written = last

    def _cut(self, size: int) -> None:
        # Not where there is nothing to cut: that changes the file's time, by which others know what has changed.
        if os.fstat(self._file.fileno()).st_size != size:
            os.ftruncate(self._file.fileno(), size)

    def _page(self, page: int) -> bytearray:
        kept = self._pages.get(page)
        if kept is None:
            kept = self._pages[page] = bytearray(PAGE)
            start = page * PAGE
            self._read_at(start, memoryview(kept)[: min(PAGE, self._committed - start)])
        return kept

    def _read_at(self, offset: int, view: memoryview) -> None:
        self._file.seek(offset)
        while view:
            count = self._file.readinto(view)  # type: ignore[attr-defined]
            if not count:
                view[:] = bytes(len(view))  # a hole behind the end of the file
                return
            view = view[count:]

    def _write_at(self, offset: int, view: memoryview) -> None:
        try:
            self._file.seek(offset)
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            self.failure = self.failure or error


def journal_path(path: Path) -> Path:
    """Where the journal of a file is, while there is one."""
    return path.with_name(f"{path.name}.journal")


def recover(path: Path) -> None:
    """Finish the commit that a killed process had begun, if there is one. Raises OSError as JournaledFile."""
    with _open_locked(path) as file:
        _settle(file, journal_path(path))


def _open_locked(path: Path) -> BinaryIO:
    file = path.open("r+b", buffering=0)
    if sys.platform != "win32":
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise
        except OSError:
            pass  # a file system without locks
    return file


def _settle(file: BinaryIO, journal: Path) -> None:
    """Replay the journal if it and what it points to are whole, and remove it."""
    if not journal.is_file():
        return
    raw = journal.read_bytes()
    body = raw[_HEADER.size :]
    if len(raw) >= _HEADER.size and _HEADER.unpack_from(raw) == (_MAGIC, len(body), zlib.crc32(body)):
        _, end = _ENDS.unpack_from(body)
        if os.fstat(file.fileno()).st_size >= end:
            _apply(file, body)
    journal.unlink()


def _apply(file: BinaryIO, body: bytes) -> None:
    end, _ = _ENDS.unpack_from(body)  # the last page may reach beyond what was committed
    for start in range(_ENDS.size, len(body), 8 + PAGE):
        (page,) = struct.unpack_from("<Q", body, start)
        content = memoryview(body)[start + 8 : start + 8 + PAGE]
        file.seek(page * PAGE)
        view = content[: max(0, end - page * PAGE)]
        while view:
            view = view[file.write(view) :]
    os.fsync(file.fileno())


def _split(start: int, count: int, page: int) -> Iterator[tuple[int, range, range]]:
    """The pages, so large, under `count` bytes from `start`: number, range inside the page, range inside the bytes."""
    done = 0
    while done < count:
        number, first = divmod(start + done, page)
        size = min(page - first, count - done)
        yield number, range(first, first + size), range(done, done + size)
        done += size
