"""The settings of a run: one frozen dataclass, from which the command line and the presets are made too."""

import dataclasses
import difflib
import tomllib
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self, get_args, get_origin

from lgbatch.errors import InputError


def _setting(default: Any, help: str, *, low: float | None = None, high: float | None = None) -> Any:
    return field(default=default, metadata={"help": help, "low": low, "high": high})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every setting that changes what a run does. Values out of range and unknown names are errors."""

    extractor: Literal[
        "disk", "aliked-n16", "aliked-n16rot", "aliked-n32", "aliked-t16", "superpoint", "xfeat", "sift"
    ] = _setting("disk", "Local features to extract.")
    max_keypoints: int = _setting(2048, "Most keypoints to keep of an image.", low=1, high=65536)
    resize: int = _setting(
        1024, "Long side, in pixels, to shrink photos to before extraction; 0 keeps them.", low=0, high=16384
    )
    pairing: Literal["exhaustive", "sequential"] = _setting(
        "exhaustive", "Which images to pair: all with all, or neighbours in name order."
    )
    window: int = _setting(10, "Sequential pairing: how many following images each one meets.", low=1)
    depth_confidence: float = _setting(
        0.95, "Share of points that must be sure of their match for a pair to be done early; -1 never.", low=-1, high=1
    )
    width_confidence: float = _setting(
        0.99, "How unlikely a match must be for a point to be dropped on the way; -1 never drops.", low=-1, high=1
    )
    filter_threshold: float = _setting(0.1, "Least assignment probability of a match.", low=0.0, high=1.0)
    give_up: int = _setting(
        0, "Leave a pair after two layers, without matches, when fewer than this many are sure by then; 0 never.", low=0
    )
    camera_mode: Literal["auto", "image", "folder", "single"] = _setting(
        "auto",
        "Who shares a camera: photos with the same EXIF camera, focal length and size, or without EXIF those of a "
        "folder if all have one size (auto); nobody (image); photos of one folder (folder); all photos (single).",
    )
    camera_model: str = _setting("SIMPLE_RADIAL", "COLMAP camera model.")
    mapper: Literal["incremental", "global"] = _setting("incremental", "COLMAP mapper.")
    on_change: Literal["recompute", "refuse", "keep"] = _setting(
        "refuse",
        "What was made with other settings, by another model, or of a photo or features that have changed since: make "
        "it again (recompute), go no further (refuse), or use it as it is (keep).",
    )
    device: Literal["auto", "cpu", "cuda", "tensorrt", "openvino", "coreml", "directml"] = _setting(
        "auto",
        "Where the models run: an NVIDIA GPU if ONNX Runtime can use it, else the CPU (auto), or a provider of ONNX "
        "Runtime. tensorrt, openvino, coreml and directml run extraction alone. What cannot be used is told, and "
        "left out.",
    )
    precision: Literal["auto", "fp32", "fp16", "int8"] = _setting(
        "auto",
        "What matching computes in: fp32 finds the published network's matches; int8, on a CPU, 99 percent of them, "
        "and much faster where the processor multiplies bfloat16; fp16 is for a GPU (auto: int8 or fp16 there, else "
        "fp32).",
    )
    threads: int = _setting(0, "CPU threads; 0 takes all cores.", low=0, high=1024)
    workers: int = _setting(
        0,
        "How many match at once: on GPUs, at most this many of them; 0 takes every GPU, or every core.",
        low=0,
        high=1024,
    )
    max_megapixels: int = _setting(500, "Photos of more megapixels are not decoded.", low=1, high=1073)  # OpenCV's own
    max_errors: int = _setting(0, "Stop a stage when more photos or pairs than this failed anew; 0 never.", low=0)

    def __post_init__(self) -> None:
        """Check types and ranges."""
        for f in fields(self):
            _check(f, getattr(self, f.name))

    @classmethod
    def load(cls, path: Path | None = None, **changes: Any) -> Self:
        """Settings from the defaults, then a TOML file, then `changes` whose value is not None.

        Raises InputError on an unreadable file, an unknown key (naming the nearest known one) or a bad value.
        """
        values = _read_toml(path) if path else {}
        values |= {key: value for key, value in changes.items() if value is not None}
        known = {f.name for f in fields(cls)}
        for key in sorted(values.keys() - known):
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else f"; known are {', '.join(sorted(known))}"
            raise InputError(f"unknown setting {key!r}{hint}")
        return cls(**values)

    def as_dict(self) -> dict[str, Any]:
        """The settings as plain values, for summaries and fingerprints."""
        return dataclasses.asdict(self)


def preset(name: str) -> Path:
    """The file of a preset that came with the package, or `name` itself when it is a file."""
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
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, lists in lists in lists
        raise InputError(f"cannot read settings from {path}: {error}") from None


def _check(f: "dataclasses.Field[Any]", value: Any) -> None:
    if get_origin(f.type) is Literal:
        choices = get_args(f.type)
        if value not in choices:
            raise InputError(f"{f.name} must be one of {', '.join(choices)}, not {value!r}")
        return
    number = isinstance(value, int) or (f.type is float and isinstance(value, float))
    if isinstance(value, bool) or not (isinstance(value, str) if f.type is str else number):
        raise InputError(f"{f.name} must be {f.type.__name__}, not {value!r}")  # type: ignore[union-attr]
    low, high = f.metadata["low"], f.metadata["high"]
    if not ((low is None or low <= value) and (high is None or value <= high)):  # so that NaN is refused as well
        span = f"at least {low}" if high is None else f"in {low}..{high}"
        raise InputError(f"{f.name} must be {span}, not {value}")
