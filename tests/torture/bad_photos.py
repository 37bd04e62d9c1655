"""Bad photos and bad names: how each is made, and what `lgbatch run` is to make of it."""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

Maker = Callable[[Path], None]
"""Makes what is bad below a folder of good photos."""

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (48, 64, 3), dtype=np.uint8)


def encoded(suffix: str, pixels: np.ndarray = NOISE) -> bytes:
    return cv2.imencode(suffix, pixels)[1].tobytes()


def holds(name: str | bytes, data: bytes) -> Maker:
    def make(folder: Path) -> None:
        path = folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    return make


def png(width: int, height: int, *, depth: int = 8, colour: int = 2, body: bytes = b"") -> bytes:
    """A PNG with right checksums that says what it likes about itself."""
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)), (b"IDAT", zlib.compress(body)))
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, data in (*chunks, (b"IEND", b"")):
        parts.append(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))
    return b"".join(parts)


def bmp(width: int, height: int) -> bytes:
    """A BMP that has no more than its header."""
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 60, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0) + b"\0" * 6


def tiff(*tags: tuple[int, int, int, int]) -> bytes:
    return (
        b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + b"\0" * 4
    )


def cut(data: bytes, share: float) -> bytes:
    return data[: int(len(data) * share)]


def flipped(data: bytes, step: int) -> bytes:
    changed = bytearray(data)
    for at in range(40, len(changed), step):
        changed[at] ^= 0xFF
    return bytes(changed)


def _link(name: str, target: str) -> Maker:
    return lambda folder: (folder / name).symlink_to(target)


BAD = {
    "empty": holds("bad.jpg", b""),
    "text": holds("bad.jpg", b"not a photo\n"),
    "random": holds("bad.png", RNG.bytes(5000)),
    "zeros": holds("bad.tif", bytes(5000)),
    "html": holds("bad.jpg", b"<!DOCTYPE html><title>404</title>"),
    "gif as jpg": holds("bad.jpg", b"GIF89a" + bytes(100)),
    "heic as jpg": holds("bad.jpg", b"\0\0\0\x18ftypheic" + bytes(100)),
    "jpeg cut": holds("bad.jpg", cut(encoded(".jpg"), 0.5)),
    "jpeg header": holds("bad.jpg", b"\xff\xd8\xff\xe0\0\x10JFIF\0"),
    "jpeg marker loop": holds("bad.jpg", b"\xff\xd8" + b"\xff\xe0\0\0" * 1000),
    "jpeg markers only": holds("bad.jpg", b"\xff\xd8\xff" + b"\xff" * 5000 + b"\xff\xd9"),
    "png cut": holds("bad.png", cut(encoded(".png"), 0.5)),
    "png checksum": holds("bad.png", flipped(encoded(".png"), 100)),
    "png signature": holds("bad.png", b"\x89PNG\r\n\x1a\n"),
    "png without pixels": holds("bad.png", png(64, 48)),
    "png of no size": holds("bad.png", png(0, 0)),
    "png of a billion pixels": holds("bad.png", png(100_000, 100_000, body=bytes(1000))),
    "png of a strange depth": holds("bad.png", png(64, 48, depth=7, body=bytes(48 * 193))),
    "bmp of two billion": holds("bad.bmp", bmp(2**31 - 1, 2**31 - 1)),
    "bmp of minus one": holds("bad.bmp", bmp(-1, -1)),
    "bmp header": holds("bad.bmp", b"BM" + bytes(20)),
    "tiff cut": holds("bad.tif", cut(encoded(".tif"), 0.5)),
    "tiff beyond its end": holds("bad.tif", b"II*\0\xff\xff\xff\x7f"),
    "tiff into itself": holds("bad.tif", tiff((256, 4, 1, 64), (257, 4, 1, 48), (273, 4, 1, 0), (279, 4, 1, 2**31))),
    "tiff of four billion tags": holds("bad.tif", tiff((258, 3, 2**32 - 1, 8), (273, 4, 2**30, 8))),
    "tiff float": holds("bad.tif", encoded(".tif", NOISE.astype(np.float32))),
    "webp cut": holds("bad.webp", cut(encoded(".webp"), 0.5)),
    "webp header": holds("bad.webp", b"RIFF\xff\xff\xff\xffWEBPVP8 "),
    "jp2 cut": holds("bad.jp2", cut(encoded(".jp2"), 0.5)),
    "jp2 header": holds("bad.jp2", b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(50)),
    "link to nowhere": _link("bad.jpg", "gone.jpg"),
    "link to itself": _link("bad.jpg", "bad.jpg"),
    "pipe": lambda folder: os.mkfifo(folder / "bad.jpg"),
    "device": _link("bad.jpg", "/dev/zero"),
}
"""One bad photo among good ones: it is named, and the rest goes on (exit status 1)."""

FINE = {
    "folder called photo": lambda folder: (folder / "bad.jpg").mkdir(),
    "link to its folder": _link("again", "."),
    "link to its parent": _link("up", ".."),
    "one pixel": holds("one.png", encoded(".png", NOISE[:1, :1])),
    "four pixels": holds("four.jpg", encoded(".jpg", NOISE[:2, :2])),
    "grey": holds("grey.png", encoded(".png", NOISE[..., 0])),
    "alpha": holds("alpha.png", encoded(".png", np.dstack([NOISE, NOISE[..., :1]]))),
    "sixteen bits": holds("deep.png", encoded(".png", NOISE.astype(np.uint16) * 256)),
    "a hair": holds("hair.png", encoded(".png", np.zeros((1, 3000, 3), np.uint8))),
}
"""Unusual, but nothing is wrong with it (exit status 0)."""

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
    "word of the store": "keypoints/scores/descriptors.png",
    "photo as folder": "a.png.png/b.png",
    "query": "'; DROP TABLE images; --.png",
}
"""Names that any file system and every file of ours can carry (exit status 0)."""

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
"""Names that a store or a database could not carry: told, and left out (exit status 1)."""
