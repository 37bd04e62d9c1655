"""Which files are photos: by extension, and by the packages that are installed."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path, PurePath

from PIL import Image, features

_PLAIN = ("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "tif", "tiff", "webp", "bmp", "jp2")
_HEIF = ("heic", "heif", "hif")
_RAW = ("dng", "cr2", "cr3", "crw", "nef", "nrw", "arw", "sr2", "srf", "orf", "rw2", "raf", "pef", "srw", "3fr", "iiq")
_UNREADABLE = ("gif", "exr", "hdr", "psd", "tga", "j2k", "j2c", "jpf", "jpx", "jxl", "jxr", "pbm", "pgm", "ppm", "x3f")

HAS_HEIF = find_spec("pillow_heif") is not None
HAS_RAW = find_spec("rawpy") is not None
_AVIF = ("avif",) if features.check("avif") or HAS_HEIF else ()
SUFFIXES = _PLAIN + _AVIF + _HEIF * HAS_HEIF + _RAW * HAS_RAW
"""File name extensions of photos, matched case-insensitively."""
_LEFT_OUT = ({*_HEIF, *_RAW, *_UNREADABLE, "avif"}) - {*SUFFIXES}
_OTHER_FOLDERS = {"@eaDir", "@Recycle", "#recycle", "$RECYCLE.BIN", "__MACOSX", ".thumbnails"}
"""Folders of thumbnails, metadata and deleted files that network storage and archives add."""
_OWN_PICTURE = "matches.png"

# Pillow refuses large images when it opens them; here --max-megapixels is the limit.
Image.MAX_IMAGE_PIXELS = None
if HAS_HEIF:
    import pillow_heif

    pillow_heif.register_heif_opener()
PILLOW_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "JPEG2000", "AVIF", *(("HEIF",) * HAS_HEIF))
"""Formats in which Pillow reads metadata."""
_READ_BY_COLMAP = (b"\xff\xd8\xff", b"\x89PNG", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"BM")
"""First bytes of JPEG, PNG, TIFF and BMP files (pycolmap 4.2.1)."""


def suffix(path: PurePath | str) -> str:
    """Return the extension of a file's name in lower case, without the dot."""
    return PurePath(path).suffix[1:].lower()


def is_photo(name: str) -> bool:
    """Tell by its name whether a file is a photo that lgbatch can read."""
    return suffix(name) in SUFFIXES and PurePath(name).name != _OWN_PICTURE


def is_raw(path: PurePath | str) -> bool:
    """Tell by its name whether a file is a raw photo."""
    return suffix(path) in _RAW


def is_left_out(name: str) -> bool:
    """Tell by its name whether a file is an image that lgbatch cannot read."""
    return suffix(name) in _LEFT_OUT


def holds_no_photos(folder: str) -> bool:
    """Tell whether a folder's name is one of those that hold thumbnails or deleted files."""
    return folder in _OTHER_FOLDERS


def read_by_colmap(photo: Path) -> bool:
    """Tell by a file's first bytes whether COLMAP can read its pixels. Raises OSError."""
    with photo.open("rb") as file:
        return file.read(4).startswith(_READ_BY_COLMAP) and not is_raw(photo)


def format_left_out(counts: Mapping[str, int]) -> str:
    """Describe the images that were left out: their number by extension, and what would read them."""
    by_remedy: dict[str, list[str]] = {}
    for kind, count in sorted(counts.items()):
        by_remedy.setdefault(_remedy(kind), []).append(f"{count} .{kind}")
    return "; ".join(f"{', '.join(kinds)} ({remedy})" for remedy, kinds in by_remedy.items())


def _remedy(kind: str) -> str:
    if kind in _UNREADABLE:
        return "convert to JPEG or PNG"
    return f"pip install 'lgbatch[{'raw' if kind in _RAW else 'heif'}]' to read them"
