"""Corrupt and unusual photos and file names, grouped by the result that `lgbatch run` has to have."""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

AddFile = Callable[[Path], None]
"""Adds one photo to a folder of good photos."""

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (48, 64, 3), dtype=np.uint8)


def encoded(suffix: str, pixels: np.ndarray = NOISE) -> bytes:
    """A valid photo in the format of the suffix."""
    return cv2.imencode(suffix, pixels)[1].tobytes()


def with_file(name: str | bytes, data: bytes) -> AddFile:
    """Add a file."""

    def add(folder: Path) -> None:
        path = folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    return add


def png(width: int, height: int, *, depth: int = 8, colour: int = 2, body: bytes = b"") -> bytes:
    """A PNG with an arbitrary header and body but valid checksums."""
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)), (b"IDAT", zlib.compress(body)))
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, data in (*chunks, (b"IEND", b"")):
        parts.append(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))
    return b"".join(parts)


def bmp(width: int, height: int) -> bytes:
    """A BMP that ends after its header."""
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 60, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0) + b"\0" * 6


def tiff(*tags: tuple[int, int, int, int]) -> bytes:
    """A TIFF of one directory without pixels. Each tag is (number, type, count, value)."""
    return (
        b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + b"\0" * 4
    )


def truncated(data: bytes, fraction: float) -> bytes:
    return data[: int(len(data) * fraction)]


def flipped(data: bytes, step: int) -> bytes:
    """Invert every `step`-th byte after the first 40."""
    changed = bytearray(data)
    for position in range(40, len(changed), step):
        changed[position] ^= 0xFF
    return bytes(changed)


def with_link(name: str, target: str) -> AddFile:
    """Add a symbolic link."""
    return lambda folder: (folder / name).symlink_to(target)


BAD = {
    "empty": with_file("bad.jpg", b""),
    "text": with_file("bad.jpg", b"not a photo\n"),
    "random": with_file("bad.png", RNG.bytes(5000)),
    "zeros": with_file("bad.tif", bytes(5000)),
    "html": with_file("bad.jpg", b"<!DOCTYPE html><title>404</title>"),
    "gif as jpg": with_file("bad.jpg", b"GIF89a" + bytes(100)),
    "heic as jpg": with_file("bad.jpg", b"\0\0\0\x18ftypheic" + bytes(100)),
    "jpeg truncated": with_file("bad.jpg", truncated(encoded(".jpg"), 0.5)),
    "jpeg header": with_file("bad.jpg", b"\xff\xd8\xff\xe0\0\x10JFIF\0"),
    "jpeg marker loop": with_file("bad.jpg", b"\xff\xd8" + b"\xff\xe0\0\0" * 1000),
    "jpeg markers only": with_file("bad.jpg", b"\xff\xd8\xff" + b"\xff" * 5000 + b"\xff\xd9"),
    "png truncated": with_file("bad.png", truncated(encoded(".png"), 0.5)),
    "png checksum": with_file("bad.png", flipped(encoded(".png"), 100)),
    "png signature": with_file("bad.png", b"\x89PNG\r\n\x1a\n"),
    "png without pixels": with_file("bad.png", png(64, 48)),
    "png of size zero": with_file("bad.png", png(0, 0)),
    "png of a billion pixels": with_file("bad.png", png(100_000, 100_000, body=bytes(1000))),
    "png of invalid depth": with_file("bad.png", png(64, 48, depth=7, body=bytes(48 * 193))),
    "bmp of two billion pixels wide": with_file("bad.bmp", bmp(2**31 - 1, 2**31 - 1)),
    "bmp of negative size": with_file("bad.bmp", bmp(-1, -1)),
    "bmp header": with_file("bad.bmp", b"BM" + bytes(20)),
    "tiff truncated": with_file("bad.tif", truncated(encoded(".tif"), 0.5)),
    "tiff directory beyond its end": with_file("bad.tif", b"II*\0\xff\xff\xff\x7f"),
    "tiff strips in its header": with_file(
        "bad.tif", tiff((256, 4, 1, 64), (257, 4, 1, 48), (273, 4, 1, 0), (279, 4, 1, 2**31))
    ),
    "tiff of four billion tags": with_file("bad.tif", tiff((258, 3, 2**32 - 1, 8), (273, 4, 2**30, 8))),
    "tiff float": with_file("bad.tif", encoded(".tif", NOISE.astype(np.float32))),
    "webp truncated": with_file("bad.webp", truncated(encoded(".webp"), 0.5)),
    "webp header": with_file("bad.webp", b"RIFF\xff\xff\xff\xffWEBPVP8 "),
    "jp2 truncated": with_file("bad.jp2", truncated(encoded(".jp2"), 0.5)),
    "jp2 header": with_file("bad.jp2", b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(50)),
    "link to nowhere": with_link("bad.jpg", "gone.jpg"),
    "link to itself": with_link("bad.jpg", "bad.jpg"),
    "pipe": lambda folder: os.mkfifo(folder / "bad.jpg"),
    "device": with_link("bad.jpg", "/dev/zero"),
}
"""The run reports the bad photo and uses the others (exit status 1)."""

FINE = {
    "folder called photo": lambda folder: (folder / "bad.jpg").mkdir(),
    "link to its folder": with_link("again", "."),
    "link to its parent": with_link("up", ".."),
    "one pixel": with_file("one.png", encoded(".png", NOISE[:1, :1])),
    "four pixels": with_file("four.jpg", encoded(".jpg", NOISE[:2, :2])),
    "grey": with_file("grey.png", encoded(".png", NOISE[..., 0])),
    "alpha": with_file("alpha.png", encoded(".png", np.dstack([NOISE, NOISE[..., :1]]))),
    "sixteen bits": with_file("deep.png", encoded(".png", NOISE.astype(np.uint16) * 256)),
    "one pixel high": with_file("strip.png", encoded(".png", np.zeros((1, 3000, 3), np.uint8))),
}
"""Unusual but valid (exit status 0)."""

PHOTO = encoded(".png")
GOOD_NAMES = {
    "quotes": 'it\'s "quoted".png',
    "markup": "<b>&amp;<script>alert(1)<-script>.png",
    "four bytes": "\U0001d54a\U0001f5ff.png",
    "combining": "e\u0301.png",
    "right to left": "\u202egnp.exe.png",
    "option": "--help.png",
    "comment": "#1.png",
    "dots": "a..b/c...png.png",
    "backslash": "a\\b.png",
    "spaces": "  two  spaces  .png",
    "wide space": "a\u3000b\u00a0c.png",
    "template": "{name} %s %(x)s $HOME `id`.png",
    "longest": "x" * 251 + ".png",
    "dataset names": "keypoints/scores/descriptors.png",
    "photo as folder": "a.png.png/b.png",
    "query": "'; DROP TABLE images; --.png",
}
"""Names that stores, pairs files and databases can hold (exit status 0)."""

BAD_NAMES: dict[str, str | bytes] = {
    "newline": "new\nline.png",
    "tab": "ta\tb.png",
    "escape": "\x1b[2J\x1b]0;title\x07.png",
    "carriage return": "a\rb.png",
    "not UTF-8": b"\xff\xfe.png",
    "half a character": b"\xf0\x9f\x97.png",
    "surrogate": b"\xed\xa0\x80.png",
    "next line": "a\u0085b.png",
}
"""Names that a store or a database cannot hold. The run reports them and uses the others (exit status 1)."""
