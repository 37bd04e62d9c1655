"""Hash photo files, to detect a photo that was replaced by another one of the same name."""

import hashlib

from lgbatch.types import ImageRef, PhotoFile


def hash_photo(ref: ImageRef) -> PhotoFile:
    """Hash a photo's file (64-bit BLAKE2b). Raises OSError."""
    with ref.path.open("rb") as file:
        # Size and time come first: if the file changes while it is hashed, they differ at the next check.
        size, mtime_ns = file_size_and_time(ref)
        content_hash = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8))
    return PhotoFile(int.from_bytes(content_hash.digest(), "little") or 1, size, mtime_ns)  # 0 means "no hash"


def file_size_and_time(ref: ImageRef) -> tuple[int, int]:
    """Return a photo file's size in bytes and its modification time in nanoseconds since 1970. Raises OSError."""
    status = ref.path.stat()
    return status.st_size, max(0, status.st_mtime_ns)
