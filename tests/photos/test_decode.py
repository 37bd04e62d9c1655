"""decode() gives the pixels that COLMAP sees; resize maps keypoints back to the original image."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from lgbatch.errors import ItemError
from lgbatch.photos.coordinates import resized_size, to_original
from lgbatch.photos.decode import decode
from lgbatch.types import ByteArray, ImageRef, Photo


def scene(height: int = 24, width: int = 40) -> ByteArray:
    """An RGB image that differs in every orientation, smooth enough for JPEG."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), (x + 2 * y) * 2 % 256]
    return np.dstack(planes).astype(np.uint8)


def encoded(suffix: str, image: np.ndarray, *flags: int) -> bytes:
    return cv2.imencode(suffix, image[..., ::-1] if image.shape[2:] == (3,) else image, flags)[1].tobytes()


def read(folder: Path, content: bytes, name: str = "p.jpg", resize: int = 0) -> Photo:
    (folder / name).write_bytes(content)
    return decode(ImageRef(name, folder / name), resize)


def reason(folder: Path, content: bytes, name: str = "p.jpg") -> str:
    with pytest.raises(ItemError) as caught:
        read(folder, content, name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def exif(orientation: int, order: str) -> bytes:
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, 1)
    return header + struct.pack(order + "HHIHHI", 274, 3, 1, orientation, 0, 0)


def jpeg(orientation: int, order: str = "<") -> bytes:
    plain = encoded(".jpg", scene(), cv2.IMWRITE_JPEG_QUALITY, 98)
    body = b"Exif\0\0" + exif(orientation, order)
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + plain[2:]


def chunk(chunk_type: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + chunk_type + body + struct.pack(">I", zlib.crc32(chunk_type + body))


def png(orientation: int) -> bytes:
    plain = encoded(".png", scene())
    return plain[:33] + chunk(b"eXIf", exif(orientation, ">")) + plain[33:]


def tiff(
    orientation: int = 1, order: str = "<", image: np.ndarray | None = None, bits: int = 8, sample_format: int = 1
) -> bytes:
    """An uncompressed TIFF with its directory before the pixels."""
    image = scene() if image is None else image
    pixels = image.astype(image.dtype.newbyteorder(order)).tobytes()
    height, width, channels = image.shape
    tags = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, 2 if channels == 3 else 1)]
    tags += [(273, 4, 0), (274, 3, orientation), (277, 3, channels), (278, 4, height), (279, 4, len(pixels))]
    tags += [(284, 3, 1), (339, 3, sample_format)]
    directory_end = 8 + 2 + 12 * len(tags) + 4
    out = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(tags))
    extra = b""
    for tag, field_type, value in tags:
        if tag in (258, 339) and channels == 3:
            out += struct.pack(order + "HHII", tag, 3, 3, directory_end + len(extra))
            extra += struct.pack(order + "HHH", value, value, value)
        else:
            value = directory_end + 12 if tag == 273 else value
            out += struct.pack(order + "HHI", tag, field_type, 1)
            out += struct.pack(order + "I", value) if field_type == 4 else struct.pack(order + "HH", value, 0)
    return out + bytes(4) + extra.ljust(12, b"\0") + pixels


def read_by_colmap(folder: Path) -> dict[str, tuple[tuple[int, int], ByteArray]]:
    """Import a folder: name -> ((width, height) of the COLMAP camera, pixels) of every file."""
    import pycolmap

    database, names = folder.parent / "colmap.db", sorted(path.name for path in folder.iterdir())
    pycolmap.Database.open(database).close()
    pycolmap.import_images(database, folder, image_names=names)
    with pycolmap.Database.open(database) as db:
        cameras = {camera.camera_id: camera for camera in db.read_all_cameras()}
        camera_of = {image.name: cameras[image.camera_id] for image in db.read_all_images()}
    assert sorted(camera_of) == names
    return {
        name: (
            (camera_of[name].width, camera_of[name].height),
            pycolmap.Bitmap.read(folder / name, as_rgb=True).to_array(),
        )
        for name in names
    }


def assert_same_as_colmap(folder: Path, tolerance: int) -> None:
    for name, (size, pixels) in read_by_colmap(folder).items():
        photo = decode(ImageRef(name, folder / name), 0)
        assert photo.size == size, name
        assert photo.pixels.shape == pixels.shape, name
        assert np.abs(photo.pixels.astype(int) - pixels).max() <= tolerance, name


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_that_of_colmap(tmp_path: Path, orientation: int) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for order, letter in ("<", "i"), (">", "m"):
        (folder / f"{letter}.jpg").write_bytes(jpeg(orientation, order))
        (folder / f"{letter}.tif").write_bytes(tiff(orientation, order))
        (folder / f"{letter}16.tif").write_bytes(tiff(orientation, order, scene() * np.uint16(257), bits=16))
    (folder / "p.png").write_bytes(png(orientation))
    assert_same_as_colmap(folder, tolerance=2)
    # The tags are valid: OpenCV by default rotates these photos.
    for file in () if orientation == 1 else folder.iterdir():
        rotated = cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        assert rotated.shape != scene().shape or np.abs(rotated.astype(int) - scene()).max() > 50


def test_the_orientation_of_webp_is_not_applied(tmp_path: Path) -> None:
    plain = encoded(".webp", scene(), cv2.IMWRITE_WEBP_QUALITY, 101)
    assert plain[12:16] == b"VP8L"
    body = exif(6, "<")
    tagged = b"VP8X" + struct.pack("<IB3x", 10, 8) + struct.pack("<I", 39)[:3] + struct.pack("<I", 23)[:3]
    tagged += plain[12:] + b"EXIF" + struct.pack("<I", len(body)) + body
    photo = read(tmp_path, b"RIFF" + struct.pack("<I", len(tagged) + 4) + b"WEBP" + tagged)
    assert photo.size == (40, 24)
    np.testing.assert_array_equal(photo.pixels, scene())


def test_every_format_decodes_as_in_colmap(tmp_path: Path) -> None:
    rgb, grey = scene(), scene()[..., :1]
    wide = rgb.astype(np.uint16) * 257 - rgb % 3
    alpha = np.dstack([rgb[..., ::-1], rgb[..., 0]])
    packed = np.packbits(grey[..., 0] > 99, axis=1)
    bit = chunk(b"IHDR", struct.pack(">IIBBBBB", 40, 24, 1, 0, 0, 0, 0))
    bit += chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in packed))) + chunk(b"IEND", b"")
    palette = chunk(b"IHDR", struct.pack(">IIBBBBB", 40, 24, 8, 3, 0, 0, 0)) + chunk(b"PLTE", bytes(range(256)) * 3)
    palette += chunk(b"tRNS", bytes(9))
    palette += chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in grey))) + chunk(b"IEND", b"")
    folder = tmp_path / "photos"
    folder.mkdir()
    files = {
        "rgb16.png": encoded(".png", wide),
        "grey16.png": encoded(".png", wide[..., :1]),
        "grey16.tif": tiff(1, ">", wide[..., :1], bits=16),
        "grey.tif": tiff(1, "<", grey),
        "grey.jpg": encoded(".jpg", grey),
        "grey.png": encoded(".png", grey),
        "alpha.png": encoded(".png", alpha),
        "alpha16.png": encoded(".png", alpha * np.uint16(257)),
        "lzw.tif": encoded(".tif", rgb),
        "plain.bmp": encoded(".bmp", rgb),
        "progressive.jpg": encoded(".jpg", rgb, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        "restart.jpg": encoded(".jpg", rgb, cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
        "bit.png": png(1)[:8] + bit,
        "palette.png": png(1)[:8] + palette,
        "é 日本 1.JPG": encoded(".jpg", rgb),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    assert_same_as_colmap(folder, tolerance=1)
    photo = decode(ImageRef("rgb16.png", folder / "rgb16.png"), 0)
    assert photo.pixels.dtype == np.uint8
    assert np.abs(photo.pixels.astype(int) - rgb).max() <= 1


@pytest.mark.parametrize("suffix", [".webp", ".jp2", ".bmp", ".png", ".tif"])
def test_pixels_are_rgb_and_contiguous(tmp_path: Path, suffix: str) -> None:
    red = np.full((64, 64, 3), (250, 20, 10), np.uint8)
    photo = read(tmp_path, encoded(suffix, red), f"p{suffix}")
    assert np.abs(photo.pixels.astype(int) - red).max() <= 4
    assert photo.pixels.flags.c_contiguous


@pytest.mark.parametrize(
    ("width", "height", "resize", "expected"),
    [
        (4000, 3000, 1024, (1024, 768)),
        (3000, 4001, 1024, (768, 1024)),
        (1024, 5, 1024, (1024, 5)),
        (640, 480, 1024, (640, 480)),
        (4000, 3000, 0, (4000, 3000)),
        (1, 5000, 1024, (1, 1024)),
        (5000, 2, 1000, (1000, 1)),
        (1, 1, 1, (1, 1)),
    ],
)
def test_the_long_side_is_shrunk_and_never_enlarged(
    tmp_path: Path, width: int, height: int, resize: int, expected: tuple[int, int]
) -> None:
    assert resized_size(width, height, resize) == expected
    if width * height <= 10_000:
        photo = read(tmp_path, encoded(".png", scene(height, width)), resize=resize)
        assert photo.size == (width, height)
        assert photo.pixels.shape == (expected[1], expected[0], 3)


def test_resizing_averages_areas(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 16, 3), np.uint8)
    photo = read(tmp_path, encoded(".png", image), resize=4)
    means = image.reshape(2, 4, 4, 4, 3).mean(axis=(1, 3))
    assert np.abs(photo.pixels - means).max() <= 0.5


def test_a_jpeg_of_one_pixel_decodes(tmp_path: Path) -> None:
    photo = read(tmp_path, encoded(".jpg", np.full((1, 1, 3), 77, np.uint8)), resize=1024)
    assert photo.size == (1, 1)
    assert np.abs(photo.pixels.astype(int) - 77).max() <= 1


def test_to_original_scales_each_axis_separately() -> None:
    shape, size = (333, 1000, 3), (3001, 1000)
    corners = np.array([[-0.5, -0.5], [999.5, 332.5]], np.float32)
    mapped = to_original(corners, shape, size)
    assert mapped.dtype == np.float32
    np.testing.assert_allclose(mapped, [[-0.5, -0.5], [3000.5, 999.5]], rtol=0, atol=1e-4)
    same = np.array([[3.25, 4.5]], np.float32)
    np.testing.assert_array_equal(to_original(same, (10, 20, 3), (20, 10)), same)
    assert to_original(np.empty((0, 2), np.float32), shape, size).shape == (0, 2)


def test_to_original_recovers_the_position_of_a_dot(tmp_path: Path) -> None:
    image = np.zeros((90, 120, 3), np.uint8)
    image[60:63, 30:33] = 255  # Its centre is at x 31, y 61.
    photo = read(tmp_path, encoded(".png", image), resize=40)
    y, x = np.unravel_index(photo.pixels[..., 0].argmax(), photo.pixels.shape[:2])
    keypoints = to_original(np.array([[x, y]], np.float32), photo.pixels.shape, photo.size)
    np.testing.assert_allclose(keypoints, [[31, 61]], atol=1e-4)
