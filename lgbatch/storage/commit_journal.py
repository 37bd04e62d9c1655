"""The journal of a commit: a file beside another one, from which a commit that was interrupted is finished.

It holds the changed pages as they were and as they become. It is replayed only onto the file that it was written for:
where it changes bytes, that file has the bytes from before or from after the commit, also if it was killed in a write.
Another file that was put in its place has others.

A journal is a header, then the body: the file sizes before and after the commit, then each changed page after its
offset and length.
"""

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from lgbatch.storage.durable import write_synced

_HEADER = struct.Struct("<8sQQ")  # magic, length and CRC-32 of the body
_MAGIC = b"LGBJRNL2"
_ENDS = struct.Struct("<QQ")
_PAGE = struct.Struct("<QI")
_MAGIC_1 = b"LGBJRNL1"  # of lgbatch 0.1: pages of fixed size after their numbers, without the bytes from before
_PAGE_NUMBER_1 = struct.Struct("<Q")
_PAGE_SIZE_1 = 4096


class Change(NamedTuple):
    """Bytes of a file that a commit changes."""

    offset: int
    before: bytes
    """Equal to `after` if unknown: in a journal of lgbatch 0.1."""
    after: bytes


def journal_path(path: Path) -> Path:
    """Return the path of a file's journal, which exists only during a commit."""
    return path.with_name(f"{path.name}.journal")


def write_journal(journal: Path, committed: int, end: int, changes: Iterable[Change]) -> None:
    """Write and sync the journal of a commit that grows the file from `committed` to `end` bytes. Raises OSError."""
    parts = (_PAGE.pack(offset, len(after)) + before + after for offset, before, after in changes)
    body = _ENDS.pack(committed, end) + b"".join(parts)
    write_synced(journal, _HEADER.pack(_MAGIC, len(body), zlib.crc32(body)) + body)


def apply_changes(file: BinaryIO, changes: Iterable[Change]) -> None:
    """Write the changes to the file, and sync it. Raises OSError."""
    for offset, _, after in changes:
        file.seek(offset)
        view = memoryview(after)
        while view:
            view = view[file.write(view) :]
    os.fsync(file.fileno())


def recover_file(file: BinaryIO, journal: Path) -> None:
    """Replay the journal if it is complete and belongs to the file, then remove it. Raises OSError."""
    if not journal.is_file():
        return
    raw = journal.read_bytes()
    body = raw[_HEADER.size :]
    magic = raw[: len(_MAGIC)]
    if magic in (_MAGIC, _MAGIC_1) and raw[: _HEADER.size] == _HEADER.pack(magic, len(body), zlib.crc32(body)):
        committed, end = _ENDS.unpack_from(body)
        size = os.fstat(file.fileno()).st_size
        if magic == _MAGIC:
            changes = list(_parse(body))
            if size >= end and all(_belongs(file, change) for change in changes):
                apply_changes(file, changes)
        elif size == end:
            apply_changes(file, _parse_1(body, committed))
    journal.unlink()


def _belongs(file: BinaryIO, change: Change) -> bool:
    """Whether each byte that is changed is the one from before or from after the commit."""
    file.seek(change.offset)
    now, before, after = (
        np.frombuffer(data, np.uint8) for data in (file.read(len(change.after)), change.before, change.after)
    )
    return len(now) == len(after) and bool(np.all((now == before) | (now == after)))


def _parse(body: bytes) -> Iterator[Change]:
    position = _ENDS.size
    while position < len(body):
        offset, length = _PAGE.unpack_from(body, position)
        first = position + _PAGE.size
        position = first + 2 * length
        yield Change(offset, body[first : first + length], body[first + length : position])


def _parse_1(body: bytes, committed: int) -> Iterator[Change]:
    step = _PAGE_NUMBER_1.size + _PAGE_SIZE_1
    for position in range(_ENDS.size, len(body), step):
        (number,) = _PAGE_NUMBER_1.unpack_from(body, position)
        offset, first = number * _PAGE_SIZE_1, position + _PAGE_NUMBER_1.size
        page = body[first : first + min(_PAGE_SIZE_1, max(0, committed - offset))]
        yield Change(offset, page, page)
