"""Known intrinsics of the photos: parameters on the command line, or cameras of a COLMAP cameras.txt."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from lgbatch.config import Settings
from lgbatch.errors import InputError
from lgbatch.workspace.signals import reinstall_handlers

if TYPE_CHECKING:
    import pycolmap

_OLDEST_MODELS = frozenset(
    {
        "SIMPLE_PINHOLE",
        "PINHOLE",
        "SIMPLE_RADIAL",
        "RADIAL",
        "OPENCV",
        "FULL_OPENCV",
        "FOV",
        "SIMPLE_RADIAL_FISHEYE",
        "RADIAL_FISHEYE",
        "OPENCV_FISHEYE",
        "THIN_PRISM_FISHEYE",
    }
)
"""Models that every pycolmap has: a command that has nothing to do need not import it for them."""
FOLDERS_FILE = "folders.txt"
"""File beside a calibration of several cameras: lines of FOLDER CAMERA_ID."""
Size = tuple[int, int]
"""(width, height) in pixels."""


@dataclass(frozen=True)
class KnownCamera:
    """A calibrated camera."""

    model: str
    params: tuple[float, ...]
    """In COLMAP's order for the model."""
    size: Size | None
    """The size of the photos that it was calibrated with. None: any."""

    def at(self, name: str, size: Size) -> "pycolmap.Camera":
        """Return the camera for the image `name` of `size`. Raises InputError if its aspect ratio is another one."""
        import pycolmap

        camera = pycolmap.Camera.create_from_model_name(0, self.model, 1.0, *(self.size or size))
        camera.params = list(self.params)
        camera.has_prior_focal_length = True
        if self.size and self.size != size:
            if abs(size[1] - self.size[1] * size[0] / self.size[0]) > 1:
                raise InputError(
                    f"image {name} is {size[0]}x{size[1]}, but its camera in the calibration is "
                    f"{self.size[0]}x{self.size[1]}: calibrate with photos of that aspect ratio"
                )
            camera.rescale(*size)
        return camera


@dataclass(frozen=True)
class Calibration:
    """Known cameras by folder: '.' for the folder of photos itself. A folder without one has that of its parent."""

    cameras: dict[str, KnownCamera]
    shares_cameras: bool
    """Photos with the same known camera share it, whatever the camera mode."""

    def camera(self, name: str) -> KnownCamera:
        """Return the camera of an image. Raises InputError if its folder has none."""
        for folder in PurePosixPath(name).parents:
            if str(folder) in self.cameras:
                return self.cameras[str(folder)]
        raise InputError(f"the calibration has no camera for image {name}: list its folder in {FOLDERS_FILE}")


def check_camera_model(camera_model: str) -> None:
    """Raise InputError, which lists COLMAP's camera models, if `camera_model` is not one of them."""
    if camera_model in _OLDEST_MODELS:
        return
    import pycolmap

    reinstall_handlers()
    known = [name for name in pycolmap.CameraModelId.__members__ if name != "INVALID"]
    if camera_model not in known:
        raise InputError(f"unknown camera model '{camera_model}': use one of {', '.join(known)}")


def read_calibration(settings: Settings) -> Calibration | None:
    """Return the intrinsics that the settings give, or None if they give none.

    `camera_params` are numbers in COLMAP's order for `camera_model`, separated by commas. `calibration` is a
    cameras.txt: its camera is that of all photos; of several, folders.txt beside it gives each folder one.

    Raises InputError.
    """
    check_camera_model(settings.camera_model)
    if settings.camera_params and settings.calibration:
        raise InputError("--camera-params and --calibration both give intrinsics: use one of them")
    if settings.camera_params:
        words = settings.camera_params.replace(",", " ").split()
        params = parse_params(words, settings.camera_model, "--camera-params")
        return Calibration({".": KnownCamera(settings.camera_model, params, None)}, shares_cameras=False)
    if settings.calibration and settings.camera_mode != "auto":
        raise InputError("--calibration says which photos share a camera: leave out --camera-mode")
    return _read_cameras(Path(settings.calibration)) if settings.calibration else None


def _read_cameras(path: Path) -> Calibration:
    cameras = {}
    for number, words in _lines(path):
        where = f"{path}, line {number}"
        if len(words) < 4 or not all(word.isdecimal() and int(word) for word in (words[0], *words[2:4])):
            raise InputError(f"{where}: expected CAMERA_ID MODEL WIDTH HEIGHT PARAMS, as in COLMAP's cameras.txt")
        params = parse_params(words[4:], words[1], where)
        cameras[int(words[0])] = KnownCamera(words[1], params, (int(words[2]), int(words[3])))
    if not cameras:
        raise InputError(f"{path} has no camera: give a cameras.txt as COLMAP writes it")
    folders = path.with_name(FOLDERS_FILE)
    if len(cameras) == 1 and not folders.exists():
        return Calibration({".": next(iter(cameras.values()))}, shares_cameras=True)
    return Calibration(_read_folders(folders, cameras, path), shares_cameras=True)


def _read_folders(path: Path, cameras: dict[int, KnownCamera], source: Path) -> dict[str, KnownCamera]:
    if not path.exists():
        raise InputError(f"{source} has {len(cameras)} cameras: list FOLDER CAMERA_ID lines in {path}")
    found = {}
    for number, words in _lines(path):
        *folder, camera = words
        if not folder or not camera.isdecimal() or int(camera) not in cameras:
            raise InputError(f"{path}, line {number}: expected FOLDER CAMERA_ID with a camera of {source.name}")
        found[str(PurePosixPath(" ".join(folder)))] = cameras[int(camera)]
    return found


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """Return the words of each line with its number, without comments."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"cannot read {path}: {reason}; give the path of a cameras.txt as COLMAP writes it") from None
    lines = enumerate(text.splitlines(), 1)
    return [(number, line.split()) for number, line in lines if line.strip() and not line.lstrip().startswith("#")]


def parse_params(words: list[str], model: str, where: str) -> tuple[float, ...]:
    """Return the parameters of a camera of `model`. Raises InputError if they are not as many finite numbers."""
    import pycolmap

    try:
        expected = pycolmap.Camera.create_from_model_name(0, model, 1.0, 2, 2).params_info
    except (ValueError, RuntimeError):
        raise InputError(f"{where}: unknown camera model '{model}'") from None
    count = len(expected.split(","))
    try:
        numbers = tuple(map(float, words))
    except ValueError:
        numbers = ()
    if len(numbers) != count or not all(abs(number) < float("inf") for number in numbers):
        raise InputError(f"{where}: {model} has {count} parameters ({expected}), not {' '.join(words) or 'none'}")
    return numbers
