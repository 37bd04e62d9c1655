"""The settings of a run: one frozen dataclass. Command-line options, presets and provenance are derived from it."""

import dataclasses
import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self

from lgbatch.configs import read_toml
from lgbatch.configs.fields import CAMERAS, MACHINE, MATCHING, RERUNS, has_effect, meta, setting
from lgbatch.configs.pairs import PairSettings
from lgbatch.configs.values import check, check_words
from lgbatch.errors import InputError

Stage = Literal["orient", "extract", "pairs", "match", "import", "reconstruct", "second", "refine"]
"""The stages of a run, in order."""


@contextmanager
def as_input_error() -> Iterator[None]:
    """Raise the ValueError of lgbatch.configs as InputError."""
    try:
        yield
    except ValueError as error:
        raise InputError(str(error)) from None


_EXTRACTION = ("extract", "infer", "bench match", "bench extract", "bench run")
_MATCHING = ("match", "infer")


@dataclass(frozen=True, kw_only=True)
class Settings(PairSettings):
    """Every setting of a run. Values out of range and unknown names raise InputError."""

    extractor: Literal[
        "disk", "aliked-n16", "aliked-n16rot", "aliked-n32", "aliked-t16", "superpoint", "xfeat", "sift"
    ] = setting(
        "aliked-n16rot",
        "Extractor of the local features. No LightGlue is published for aliked-t16: it is for extraction only.",
        ("extract", "match", "infer", "doctor", "bench match", "bench run"),
        "items",
    )
    max_keypoints: int = setting(2048, "Maximum keypoints per image.", _EXTRACTION, "items", low=1, high=65536)
    resize: int = setting(
        1024,
        "Shrink photos to this long side, in pixels, before extraction. 0 keeps their size.",
        _EXTRACTION,
        "items",
        low=0,
        high=16384,
    )
    rotation: Literal["auto", "exif", "none"] = setting(
        "auto",
        "How photos are turned upright for extraction and matching, by quarter turns. exif: by the EXIF orientation. "
        "auto: also as similar photos show. none: not at all.",
        ("orient", "import", "infer"),
        "stage",
        help_for={
            "import": "Whether the database gets the direction of gravity from the EXIF orientation: not with none. "
            "The features stay as `lgbatch extract` has turned the photos."
        },
    )
    masks: str = setting(
        "",
        "Folder of masks, black where a photo is ignored. The mask of a/b.jpg is a/b.jpg.png or a/b.png.",
        ("extract", "undistort"),
        "stage",
        help_for={"undistort": "Folder of masks, black where a photo is ignored. By default that of the extraction."},
    )
    camera_mask: str = setting(
        "", "Mask for all photos, black where they are ignored.", ("extract", "undistort"), "stage"
    )
    depth_confidence: float = setting(
        0.95,
        "Early exit: stop LightGlue once this fraction of the keypoints of a pair is confident. -1 disables it.",
        _MATCHING,
        "items",
        MATCHING,
        low=-1,
        high=1,
    )
    width_confidence: float = setting(
        0.99,
        "Point pruning: drop confident keypoints with a matchability below 1 minus this value. -1 disables it.",
        _MATCHING,
        "items",
        MATCHING,
        low=-1,
        high=1,
    )
    filter_threshold: float = setting(
        0.1,
        "Minimum score of a match, 0 to 1: the assignment probability of LightGlue.",
        (*_MATCHING, "bench match"),
        "items",
        MATCHING,
        low=0.0,
        high=1.0,
    )
    give_up: int = setting(
        0,
        "Stop a pair after two layers of LightGlue, and store no matches, if fewer matches than this score above 0.3. "
        "0 disables it.",
        ("match",),
        "items",
        MATCHING,
        low=0,
    )
    second_try: float = setting(
        0.75,
        "Second try of the photos that are not in the model, or hardly joined to it, with SIFT at up to 3200 pixels. "
        "It has at most this fraction of the pairs of the first try. 0 disables it.",
        ("second",),
        "stage",
        MATCHING,
        low=0.0,
        high=1.0,
    )
    camera_mode: Literal["auto", "image", "folder", "single"] = setting(
        "auto",
        "Photos that share a camera. auto: those with the same EXIF camera, focal length and size; without EXIF, those "
        "of a folder if all have the same size, portrait and landscape photos apart. image: none. folder: those of a "
        "folder. single: all.",
        ("import", "bench run"),
        "stage",
        CAMERAS,
    )
    camera_model: str = setting(
        "SIMPLE_RADIAL", "COLMAP camera model.", ("import",), "stage", CAMERAS, only_with=("calibration", "")
    )
    camera_params: str = setting(
        "",
        "Known intrinsics of all photos, in COLMAP's order for the camera model: f,cx,cy,k for SIMPLE_RADIAL.",
        ("import",),
        "stage",
        CAMERAS,
    )
    calibration: str = setting(
        "",
        "Known cameras: COLMAP's cameras.txt. If it has several, folders.txt beside it has lines FOLDER CAMERA_ID.",
        ("import",),
        "stage",
        CAMERAS,
    )
    rig_config: str = setting(
        "",
        "Cameras that are mounted together: COLMAP's rig_config.json. Pairing by order of names keeps them in step.",
        ("pairs", "import"),
        "stage",
        CAMERAS,
    )
    fix_intrinsics: bool = setting(
        False,
        "Keep the initial intrinsics of the cameras in mapping and refinement.",
        ("reconstruct", "refine"),
        "stage",
        CAMERAS,
    )
    refine: bool = setting(
        True,
        "Refine the models: align the keypoints of each 3D point in the photos at full size, and adjust cameras and "
        "points to them. A model that does not become better stays as it is.",
        ("refine",),
        "stage",
        CAMERAS,
    )
    refine_intrinsics: Literal["auto", "focal", "all", "none"] = setting(
        "auto",
        "Intrinsics to refine with the models. focal: focal length and distortion, as in mapping. all: also the "
        "principal point of cameras with five images or more. auto: as focal, and also the principal point and a "
        "second radial coefficient where the photos determine them. none: no intrinsics.",
        ("refine",),
        "stage",
        CAMERAS,
        only_with=("refine", True),
    )
    mapper: Literal["incremental", "global"] = setting(
        "incremental", "COLMAP mapper: photo by photo, or all at once.", ("reconstruct", "bench run"), "stage", CAMERAS
    )
    on_change: Literal["recompute", "refuse", "keep"] = setting(
        "refuse",
        "Stored results of other settings, models, photos or features: compute them again (recompute), stop with an "
        "error (refuse), or use them (keep).",
        ("orient", "extract", "match", "import"),
        "stage",
        RERUNS,
    )
    max_errors: int = setting(
        0,
        "Stop a stage after more new failures of photos or pairs than this. 0: no limit.",
        ("extract", "match"),
        "none",
        RERUNS,
        low=0,
    )
    max_megapixels: int = setting(  # the upper limit is that of OpenCV
        500, "Size limit of photos, in megapixels. Larger ones fail.", ("extract",), "stage", MACHINE, low=1, high=1073
    )
    device: Literal["auto", "cpu", "cuda", "tensorrt", "openvino", "coreml", "directml"] = setting(
        "auto",
        "Device of the models. auto: an NVIDIA GPU if ONNX Runtime can use it, else the CPU. tensorrt, openvino, "
        "coreml and directml run extraction only. If the device is unavailable, a warning says which one is used.",
        ("extract", "match", "infer", "doctor", "bench match", "bench extract", "bench run", "shard"),
        "none",
        MACHINE,
    )
    precision: Literal["auto", "fp32", "fp16", "int8"] = setting(
        "auto",
        "Precision of matching. fp32 finds the matches of the published network. int8 finds 97 to 99 percent of them, "
        "several times faster, on CPUs with fast bfloat16. fp16 needs a GPU. auto: the fastest available.",
        (*_MATCHING, "doctor"),
        "items",
        MACHINE,
    )
    threads: int = setting(
        0,
        "CPU threads. 0 uses all cores.",
        (*_EXTRACTION, "pairs", "match", "reconstruct", "refine", "shard"),
        "none",
        MACHINE,
        low=0,
        high=1024,
    )
    workers: int = setting(
        0,
        "Number of matching workers: GPUs, or CPU cores. 0 uses all.",
        ("match", "bench match"),
        "none",
        MACHINE,
        low=0,
        high=1024,
    )
    report: bool = setting(True, "At the end, write report.html: what came of the run, and why.", ("run",), "none")

    def __post_init__(self) -> None:
        """Check types and ranges."""
        for f in fields(self):
            with as_input_error():
                check(f.name, f.type, getattr(self, f.name), meta(f).low, meta(f).high)
                if meta(f).words:
                    check_words(f.name, getattr(self, f.name), meta(f).words)
        with as_input_error():
            self.check_pairing()

    @classmethod
    def load(cls, path: Path | None = None, **changes: Any) -> Self:
        """Load the defaults, then override them by a TOML file, then by the `changes` that are not None.

        Raises InputError if the file is unreadable, a key is unknown (naming the nearest one) or a value is invalid.
        """
        with as_input_error():
            values = read_toml(path) if path else {}
        try:
            cls._checked(values)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        given = {key: value for key, value in changes.items() if value is not None}
        return cls._checked(values | {k: str(v) if isinstance(v, Path) else v for k, v in given.items()})

    @classmethod
    def _checked(cls, values: dict[str, Any]) -> Self:
        known = {f.name for f in fields(cls)}
        for key in sorted(values.keys() - known):
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known settings are {', '.join(sorted(known))}"
            raise InputError(f"unknown setting {key!r}; {hint}")
        return cls(**values)

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain values, for summaries and fingerprints."""
        return dataclasses.asdict(self)

    def disabled_by(self, name: str) -> str | None:
        """Return the setting whose value leaves the setting `name` without effect, or None if it has one."""
        about = meta(next(f for f in fields(self) if f.name == name))
        return (
            about.only_with[0] if about.only_with and not has_effect(about, getattr(self, about.only_with[0])) else None
        )

    def used_by(self, *users: str) -> dict[str, Any]:
        """Return the settings that any of these stages or commands reads."""
        return {f.name: getattr(self, f.name) for f in settings_used_by(*users)}

    def affecting(self, stage: Stage) -> dict[str, Any]:
        """Return the settings that change the result of a stage. The stage is stale if one of them differs."""
        return {f.name: getattr(self, f.name) for f in settings_used_by(stage) if meta(f).effect != "none"}

    def recorded(self, stage: Stage) -> dict[str, Any]:
        """Return the settings that change every item of a stage. The provenance of the items records them."""
        return {f.name: getattr(self, f.name) for f in settings_used_by(stage) if meta(f).effect == "items"}


def settings_used_by(*users: str) -> list["dataclasses.Field[Any]"]:
    """Return the settings that any of these stages or commands reads, in the order of Settings."""
    return [f for f in fields(Settings) if set(meta(f).users) & set(users)]
