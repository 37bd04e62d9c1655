"""What made an item, and whether it still fits: fingerprints, versions and the records that items carry.

made      what made an item, its settings and its model's weights, as a fingerprint; a store tells once what each means
photo     a hash of the photo file, its size and its time, so that a photo that was replaced under its name is noticed
version   a hash of an image's features themselves; a pair remembers the versions of both that it was matched from
"""

import hashlib

from lgbatch.types import ImageRef, PhotoFile


def hash_photo(ref: ImageRef) -> PhotoFile:
    """Read a photo's file for its hash. Raises OSError."""
    with ref.path.open("rb") as file:  # looked at first: what changes while it is read is noticed the next time
        size, mtime_ns = file_size_and_time(ref)
        content = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8))
    return PhotoFile(int.from_bytes(content.digest(), "little") or 1, size, mtime_ns)


def file_size_and_time(ref: ImageRef) -> tuple[int, int]:
    """Bytes, and nanoseconds since 1970, of a photo's file. Raises OSError."""
    status = ref.path.stat()
    return status.st_size, max(0, status.st_mtime_ns)
