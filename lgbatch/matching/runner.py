"""Photos to matched keypoints in a few lines of Python, with the calls of LightGlue-ONNX of 2023.

    image0, scales0 = load_image("a.jpg", resize=1024)
    image1, scales1 = load_image("b.jpg", resize=1024)
    runner = LightGlueRunner(extractor_path="disk-extractor-v4.onnx", lightglue_path="disk-matcher-v3.onnx")
    m_kpts0, m_kpts1 = runner.run(image0, image1, scales0, scales1)

The runner has a fixed depth. For folders of photos, lgbatch.pipelines.sfm stores the features and matches with early
exit and point pruning.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lgbatch.errors import InputError, ItemError, ModelError
from lgbatch.matching.capacity import TOKENS
from lgbatch.matching.schedule import pack
from lgbatch.matching.single_graph import SingleGraph
from lgbatch.photos.decode import decode
from lgbatch.runtime.devices import PROVIDERS, Device, matching_device, unavailable_reason
from lgbatch.runtime.environment import available_cores
from lgbatch.runtime.models import Model, open_file
from lgbatch.runtime.registry import MIN_SIDE
from lgbatch.runtime.session import Array
from lgbatch.types import Features, FloatArray, ImageRef, Matches

ImagePair = tuple[FloatArray, FloatArray, FloatArray, FloatArray]
"""image0, image1, scales0, scales1: the arguments of `LightGlueRunner.run`."""
MatchedKeypoints = tuple[FloatArray, FloatArray]
"""Keypoints (K, 2) of both photos; row k of one matches row k of the other."""


def load_image(path: str | Path, grayscale: bool = False, resize: int | None = None) -> tuple[FloatArray, FloatArray]:
    """Load a photo for the runner: (1, 3, H, W) float32, RGB in 0..1, and its scales (2,) float32.

    grayscale: return (1, 1, H, W).
    resize: shrink the long side to this many pixels; a smaller photo keeps its size, and so does every photo with None.
    Scales are new size / original size along x and y. Raises InputError if the file cannot be read as a photo.
    """
    try:
        photo = decode(ImageRef(Path(path).name, Path(path)), resize or 0)
    except ItemError as error:
        raise InputError(f"{path}: {error}") from None
    height, width = photo.pixels.shape[:2]
    image = np.ascontiguousarray(photo.pixels.transpose(2, 0, 1)[None], dtype=np.float32) / np.float32(255)
    scales = np.array([width / photo.size[0], height / photo.size[1]], dtype=np.float32)
    return (rgb_to_grayscale(image) if grayscale else image), scales


def rgb_to_grayscale(image: FloatArray) -> FloatArray:
    """Convert (..., 3, H, W) RGB to (..., 1, H, W) gray with the weights of ITU-R BT.601."""
    weights = np.array([0.299, 0.587, 0.114], dtype=np.float32)
    gray: FloatArray = np.einsum("...chw,c->...hw", image, weights)[..., None, :, :]
    return gray


class LightGlueRunner:
    """An extractor and its single-graph LightGlue, as `lgbatch export` writes them into the model cache.

    Or an end-to-end model, which holds both, as `lgbatch export --end2end` writes it.
    """

    def __init__(
        self,
        lightglue_path: str | Path,
        extractor_path: str | Path | None = None,
        providers: Sequence[str | tuple[str, object]] = ("CUDAExecutionProvider", "CPUExecutionProvider"),
        *,
        max_keypoints: int = 2048,
        filter_threshold: float = 0.1,
    ) -> None:
        """Open both models. Without extractor_path, lightglue_path is an end-to-end model.

        providers: the first available one is used, else the CPU. Provider options, in a tuple with the name, are
        ignored. LightGlue runs on CUDA or the CPU only; see lgbatch.runtime.devices.
        max_keypoints: most keypoints of an image.
        filter_threshold: least assignment probability of a match.

        Raises ModelError if a file is missing, damaged or not from lgbatch, or if the two models do not fit together.
        """
        device = _device([provider if isinstance(provider, str) else provider[0] for provider in providers])
        threads = available_cores()
        self._max_keypoints = np.array(max_keypoints)
        self._filter_threshold = np.array(filter_threshold, dtype=np.float32)
        self._end2end: Model | None = None
        if extractor_path is None:
            self._end2end = open_file(Path(lightglue_path), "end2end", matching_device(device), threads=threads)
            return
        self._extractor = open_file(Path(extractor_path), "extractor", device, threads=threads)
        matcher = open_file(Path(lightglue_path), "matcher", matching_device(device), threads=threads)
        if self._extractor.family != matcher.family:
            raise ModelError(
                f"{lightglue_path} is LightGlue for {matcher.family}, but {extractor_path} is the "
                f"extractor of {self._extractor.family}: pass two models of one `lgbatch export`"
            )
        self._matcher = SingleGraph(matcher, filter_threshold)

    def run(self, image0: FloatArray, image1: FloatArray, scales0: FloatArray, scales1: FloatArray) -> MatchedKeypoints:
        """Match two photos. Returns the matched keypoints, (K, 2) each: row k of one matches row k of the other.

        Images are (1, 3, H, W), or (1, 1, H, W) in gray, with their scales, as load_image returns them. Keypoints are
        in pixels of the original photos, top-left pixel centre (0, 0). Raises InputError for other shapes of images.
        """
        ((points0, points1),) = self.run_many([(image0, image1, scales0, scales1)])
        return points0, points1

    def run_many(self, pairs: Sequence[ImagePair]) -> list[MatchedKeypoints]:
        """Match several pairs in batches; see `run`.

        An image of several pairs is extracted once if all of them hold the same array object.
        """
        if self._end2end:
            return [self._run_end2end(self._end2end, pair) for pair in pairs]
        images = {id(image): image for pair in pairs for image in pair[:2]}
        features = {key: self._extract(image) for key, image in images.items()}
        sides = [(features[id(pair[0])], features[id(pair[1])]) for pair in pairs]
        keypoints: list[MatchedKeypoints] = [(np.zeros((0, 2), np.float32),) * 2] * len(pairs)
        matchable = [i for i, (first, second) in enumerate(sides) if len(first.keypoints) and len(second.keypoints)]
        lengths = [(len(sides[i][0].keypoints), len(sides[i][1].keypoints)) for i in matchable]
        for group in pack(lengths, TOKENS[self._matcher.model.device]):
            batch = [matchable[i] for i in group]
            for i, matches in zip(batch, self._matcher.match([sides[i] for i in batch]), strict=True):
                keypoints[i] = _matched_keypoints(sides[i], matches, pairs[i])
        return keypoints

    def _run_end2end(self, model: Model, pair: ImagePair) -> MatchedKeypoints:
        feed = {"max_keypoints": self._max_keypoints, "threshold": self._filter_threshold}
        for side in (0, 1):
            feed |= {f"image{side}": _rgb(pair[side]), f"scales{side}": pair[2 + side][None]}
        inputs = {name: feed[name] for name in model.session.inputs}
        keypoints0, keypoints1, _, _, matches0, _ = model.run(inputs)
        rows = np.flatnonzero(matches0[0] >= 0)
        return keypoints0[0, rows], keypoints1[0, matches0[0, rows]]

    def _extract(self, image: Array) -> Features:
        """Features with keypoints in pixels of this image, not of the original photo."""
        rgb = _rgb(image)
        height, width = image.shape[2:]
        if min(height, width) < MIN_SIDE:
            none = np.zeros((0, 2), dtype=np.float32)
            return Features(none, none[:, 0], none, (width, height))
        keypoints, scores, descriptors, counts = self._extractor.run(
            {"image": rgb, "max_keypoints": self._max_keypoints}
        )
        rows = slice(counts[0])
        return Features(keypoints[0, rows], scores[0, rows], descriptors[0, rows], (width, height))


def _rgb(image: Array) -> FloatArray:
    """Return a gray or RGB image as (1, 3, H, W) float32. Raises InputError for any other shape."""
    if image.ndim != 4 or image.shape[0] != 1 or image.shape[1] not in (1, 3):
        raise InputError(f"image has shape {image.shape}, not (1, 3, H, W) or (1, 1, H, W): load it with load_image")
    return np.ascontiguousarray(np.broadcast_to(image, (1, 3, *image.shape[2:])), dtype=np.float32)


def _device(providers: Sequence[str]) -> Device:
    """The device of the first available provider, else the CPU. Prints each unavailable one before it but CUDA."""
    devices = {provider.name: device for device, provider in PROVIDERS.items()}
    for name in providers:
        device = devices.get(name)
        reason = unavailable_reason(device) if device else "lgbatch does not support it"
        if device and not reason:
            return device
        if device != "cuda":  # a default, so that its absence is no surprise
            print(f"LightGlueRunner: {name} is unavailable ({reason}); using the next provider", file=sys.stderr)
    return "cpu"


def _matched_keypoints(sides: tuple[Features, Features], matches: Matches, pair: ImagePair) -> MatchedKeypoints:
    """The matched keypoints of a pair in pixels of the original photos."""
    first, second = (
        (features.keypoints[matches.indices[:, side]] + np.float32(0.5)) / pair[2 + side] - np.float32(0.5)
        for side, features in enumerate(sides)
    )
    return first, second
