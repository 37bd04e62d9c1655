"""Hash photo files, to detect a photo that was replaced by another one of the same name, and a changed mask."""

import hashlib

from lgbatch.types import ImageRef, PhotoFile


def hash_photo(ref: ImageRef) -> PhotoFile:
    """Hash a photo's file and those of its masks (64-bit BLAKE2b). Raises OSError."""
    with ref.path.open("rb") as file:
        # Size and time come first: if the file changes while it is hashed, they differ at the next check.
        size, mtime_ns = file_size_and_time(ref)
        content_hash = hashlib.file_digest(file, _new_hash)
    for mask in ref.masks:
        with mask.open("rb") as file:
            content_hash.update(hashlib.file_digest(file, _new_hash).digest())
    return PhotoFile(int.from_bytes(content_hash.digest(), "little") or 1, size, mtime_ns)  # 0 means "no hash"


def file_size_and_time(ref: ImageRef) -> tuple[int, int]:
    """Return the size and modification time of a photo and its masks, summed as in PhotoFile. Raises OSError."""
    statuses = [path.stat() for path in (ref.path, *ref.masks)]
    times = sum(max(0, status.st_mtime_ns) for status in statuses)
    return sum(status.st_size for status in statuses), times % 2**64


def _new_hash() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=8)
