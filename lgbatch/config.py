"""The settings of a run: one frozen dataclass. Command-line options, presets and provenance are derived from it."""

import dataclasses
import difflib
import tomllib
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self, get_args, get_origin

from lgbatch.errors import InputError

Stage = Literal["extract", "pairs", "match", "import", "reconstruct"]
"""The stages of a run, in order."""
Effect = Literal["items", "stage", "none"]
"""What a setting changes. "items": every item that a stage writes; provenance records the setting. "stage": which items
the stage writes, or its result as a whole. "none": only how the work is done."""


@dataclass(frozen=True)
class Meta:
    """Metadata of a setting. Options, staleness and provenance are derived from it."""

    help: str
    users: tuple[str, ...]
    """The stages, and the commands besides stages, that read the setting."""
    effect: Effect
    group: str
    """Heading of the setting in the help of a command."""
    low: float | None
    high: float | None
    """Inclusive limits; None if there is none."""


_EXTRACTION = ("extract", "infer", "bench match", "bench extract", "bench run")
_MATCHING = ("match", "infer")
COMMON, MATCHING, CAMERAS, RERUNS, MACHINE = "Options", "Matching", "Cameras and mapping", "Reruns", "This machine"


def _setting(
    default: Any,
    help: str,
    users: tuple[str, ...],
    effect: Effect,
    group: str = COMMON,
    *,
    low: float | None = None,
    high: float | None = None,
) -> Any:
    return field(default=default, metadata={"meta": Meta(help, users, effect, group, low, high)})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every setting of a run. Values out of range and unknown names raise InputError."""

    extractor: Literal[
        "disk", "aliked-n16", "aliked-n16rot", "aliked-n32", "aliked-t16", "superpoint", "xfeat", "sift"
    ] = _setting(
        "disk",
        "Local features. aliked-t16 is for extraction only.",
        ("extract", "match", "infer", "doctor", "bench match", "bench run"),
        "items",
    )
    max_keypoints: int = _setting(2048, "Maximum keypoints per image.", _EXTRACTION, "items", low=1, high=65536)
    resize: int = _setting(
        1024,
        "Shrink photos to this long side, in pixels, before extraction. 0 keeps their size.",
        _EXTRACTION,
        "items",
        low=0,
        high=16384,
    )
    masks: str = _setting(
        "",
        "Folder of masks, black where a photo is ignored. The mask of a/b.jpg is a/b.jpg.png or a/b.png.",
        ("extract",),
        "stage",
    )
    camera_mask: str = _setting("", "Mask for all photos, black where they are ignored.", ("extract",), "stage")
    pairing: Literal["exhaustive", "sequential"] = _setting(
        "exhaustive",
        "Image pairs to match. exhaustive: all. sequential: each image with those that follow it in its folder, frame2 "
        "before frame10.",
        ("pairs", "bench run"),
        "stage",
    )
    window: int = _setting(
        10, "Sequential pairing: number of following images per image.", ("pairs", "bench run"), "stage", low=1
    )
    depth_confidence: float = _setting(
        0.95,
        "Early exit: stop a pair once this fraction of its keypoints is confident. -1 disables it.",
        _MATCHING,
        "items",
        MATCHING,
        low=-1,
        high=1,
    )
    width_confidence: float = _setting(
        0.99,
        "Point pruning: drop a confident keypoint whose matchability is below 1 minus this value. -1 disables it.",
        _MATCHING,
        "items",
        MATCHING,
        low=-1,
        high=1,
    )
    filter_threshold: float = _setting(
        0.1,
        "Minimum assignment probability of a match.",
        (*_MATCHING, "bench match"),
        "items",
        MATCHING,
        low=0.0,
        high=1.0,
    )
    give_up: int = _setting(
        0,
        "Stop a pair after two layers, without matches, if fewer matches than this score above 0.3. 0 disables it.",
        ("match",),
        "items",
        MATCHING,
        low=0,
    )
    camera_mode: Literal["auto", "image", "folder", "single"] = _setting(
        "auto",
        "Photos that share a camera. auto: those with the same EXIF camera, focal length and size; without EXIF, those "
        "of a folder if all have the same size. image: none. folder: those of a folder. single: all.",
        ("import", "bench run"),
        "stage",
        CAMERAS,
    )
    camera_model: str = _setting("SIMPLE_RADIAL", "COLMAP camera model.", ("import",), "stage", CAMERAS)
    camera_params: str = _setting(
        "",
        "Known intrinsics of all photos, in COLMAP's order for the camera model: f,cx,cy,k for SIMPLE_RADIAL.",
        ("import",),
        "stage",
        CAMERAS,
    )
    calibration: str = _setting(
        "",
        "Known cameras: COLMAP's cameras.txt. If it has several, folders.txt beside it has lines FOLDER CAMERA_ID.",
        ("import",),
        "stage",
        CAMERAS,
    )
    fix_intrinsics: bool = _setting(
        False,
        "Map with the cameras' initial intrinsics, without refining them.",
        ("reconstruct",),
        "stage",
        CAMERAS,
    )
    mapper: Literal["incremental", "global"] = _setting(
        "incremental", "COLMAP mapper.", ("reconstruct", "bench run"), "stage", CAMERAS
    )
    on_change: Literal["recompute", "refuse", "keep"] = _setting(
        "refuse",
        "Stored results of other settings, models, photos or features: compute them again (recompute), stop with an "
        "error (refuse), or use them (keep).",
        ("extract", "match", "import"),
        "stage",
        RERUNS,
    )
    max_errors: int = _setting(
        0,
        "Stop a stage after more new failures than this. 0 disables it.",
        ("extract", "match"),
        "none",
        RERUNS,
        low=0,
    )
    max_megapixels: int = _setting(  # the upper limit is that of OpenCV
        500, "Size limit of photos, in megapixels. Larger ones fail.", ("extract",), "stage", MACHINE, low=1, high=1073
    )
    device: Literal["auto", "cpu", "cuda", "tensorrt", "openvino", "coreml", "directml"] = _setting(
        "auto",
        "Device of the models. auto: an NVIDIA GPU if ONNX Runtime can use it, else the CPU. tensorrt, openvino, "
        "coreml and directml run extraction only. If the device is unavailable, a warning says which one is used.",
        ("extract", "match", "infer", "doctor", "bench match", "bench extract", "bench run"),
        "none",
        MACHINE,
    )
    precision: Literal["auto", "fp32", "fp16", "int8"] = _setting(
        "auto",
        "Precision of matching. fp32 finds the matches of the published network. int8 finds 99 percent of them, "
        "several times faster, on CPUs with fast bfloat16. fp16 needs a GPU. auto: the fastest available.",
        (*_MATCHING, "doctor"),
        "items",
        MACHINE,
    )
    threads: int = _setting(
        0,
        "CPU threads. 0 uses all cores.",
        (*_EXTRACTION, "match", "reconstruct"),
        "none",
        MACHINE,
        low=0,
        high=1024,
    )
    workers: int = _setting(
        0,
        "Matching workers: GPUs, or CPU cores. 0 uses all.",
        ("match", "bench match"),
        "none",
        MACHINE,
        low=0,
        high=1024,
    )

    def __post_init__(self) -> None:
        """Check types and ranges."""
        for f in fields(self):
            _check(f, getattr(self, f.name))

    @classmethod
    def load(cls, path: Path | None = None, **changes: Any) -> Self:
        """Load the defaults, then override them by a TOML file, then by the `changes` that are not None.

        Raises InputError if the file is unreadable, a key is unknown (naming the nearest one) or a value is invalid.
        """
        values = _read_toml(path) if path else {}
        values |= {
            key: str(value) if isinstance(value, Path) else value for key, value in changes.items() if value is not None
        }
        known = {f.name for f in fields(cls)}
        for key in sorted(values.keys() - known):
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known settings are {', '.join(sorted(known))}"
            raise InputError(f"unknown setting {key!r}; {hint}")
        return cls(**values)

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain values, for summaries and fingerprints."""
        return dataclasses.asdict(self)

    def affecting(self, stage: Stage) -> dict[str, Any]:
        """Return the settings that change the result of a stage. The stage is stale if one of them differs."""
        return {f.name: getattr(self, f.name) for f in settings_used_by(stage) if meta(f).effect != "none"}

    def recorded(self, stage: Stage) -> dict[str, Any]:
        """Return the settings that change every item of a stage. The provenance of the items records them."""
        return {f.name: getattr(self, f.name) for f in settings_used_by(stage) if meta(f).effect == "items"}


def meta(f: "dataclasses.Field[Any]") -> Meta:
    """Return the metadata of a field of Settings."""
    metadata: Meta = f.metadata["meta"]
    return metadata


def settings_used_by(*users: str) -> list["dataclasses.Field[Any]"]:
    """Return the settings that any of these stages or commands reads, in the order of Settings."""
    return [f for f in fields(Settings) if set(meta(f).users) & set(users)]


def preset(name: str) -> Path:
    """Return the path of a preset of the package, or `name` itself if it ends in .toml.

    Raises InputError if there is no such preset.
    """
    if Path(name).suffix == ".toml":
        return Path(name)
    folder = resources.files("lgbatch.configs")
    path = Path(str(folder / f"{name}.toml"))
    if not path.is_file():
        known = sorted(p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml"))
        raise InputError(f"no preset '{name}': give a .toml file or one of {', '.join(known)}")
    return path


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read settings from {path}: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not valid TOML: {error}") from None
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, deeply nested lists
        raise InputError(f"cannot read settings from {path}: {error}") from None


def _check(f: "dataclasses.Field[Any]", value: Any) -> None:
    if get_origin(f.type) is Literal:
        choices = get_args(f.type)
        if value not in choices:
            raise InputError(f"{f.name} must be one of {', '.join(choices)}, not {value!r}")
        return
    is_number = isinstance(value, int) or (f.type is float and isinstance(value, float))
    is_of_type = type(value) is f.type if f.type in (bool, str) else is_number and not isinstance(value, bool)
    if not is_of_type:
        raise InputError(f"{f.name} must be {f.type.__name__}, not {value!r}")  # type: ignore[union-attr]
    low, high = meta(f).low, meta(f).high
    if not ((low is None or low <= value) and (high is None or value <= high)):  # written so that NaN is refused
        span = f"at least {low}" if high is None else f"in {low}..{high}"
        raise InputError(f"{f.name} must be {span}, not {value}")
