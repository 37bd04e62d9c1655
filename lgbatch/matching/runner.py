"""Photos to matched keypoints in a few lines of Python, with the calls of LightGlue-ONNX of 2023.

    image0, scales0 = load_image("a.jpg", resize=1024)
    image1, scales1 = load_image("b.jpg", resize=1024)
    runner = LightGlueRunner(extractor_path="disk-extractor-v3.onnx", lightglue_path="disk-matcher-v3.onnx")
    m_kpts0, m_kpts1 = runner.run(image0, image1, scales0, scales1)

It runs at fixed depth. Whole folders, with each photo's features kept and pairs that leave early, are for
lgbatch.pipelines.sfm.
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
from lgbatch.runtime.devices import PROVIDERS, Device, for_matching, unavailable_reason
from lgbatch.runtime.environment import available_cores
from lgbatch.runtime.models import Model, open_file
from lgbatch.runtime.registry import MIN_SIDE
from lgbatch.runtime.session import Array
from lgbatch.types import Features, FloatArray, ImageRef, Matches

Pair = tuple[FloatArray, FloatArray, FloatArray, FloatArray]
"""image0, image1, scales0, scales1, as `LightGlueRunner.run` takes them."""


def load_image(path: str | Path, grayscale: bool = False, resize: int | None = None) -> tuple[FloatArray, FloatArray]:
    """A photo as the runner takes it: (1, 3, H, W) float32, RGB in 0..1, and its scales (2,) float32.

    grayscale: (1, 1, H, W). resize: the long side is shrunk to this, in pixels, and never enlarged; None keeps it.
    Scales are the new size by the old one, along x and y. Raises InputError when the file is no photo.
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
    """(..., 3, H, W) RGB to (..., 1, H, W), by the weights of ITU-R BT.601."""
    weights = np.array([0.299, 0.587, 0.114], dtype=np.float32)
    gray: FloatArray = np.einsum("...chw,c->...hw", image, weights)[..., None, :, :]
    return gray


class LightGlueRunner:
    """An extractor and its single-graph LightGlue, as `lgbatch export` writes them into the model cache.

    Or both in one file, of `lgbatch export --end2end`.
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
        """Open both, or without an extractor_path the end-to-end model that lightglue_path is.

        The first of the providers that can be used here is; the CPU needs not be named.
        A provider is a name, or a name with options, of which none is used. LightGlue runs with CUDA or on the CPU,
        as `lgbatch.devices` tells.

        max_keypoints: most to keep of an image. filter_threshold: least assignment probability of a match.
        Raises ModelError: a file is missing, damaged, not of lgbatch, or the two do not go together.
        """
        device = _device([provider if isinstance(provider, str) else provider[0] for provider in providers])
        threads = available_cores()
        self._max_keypoints = np.array(max_keypoints)
        self._threshold = np.array(filter_threshold, dtype=np.float32)
        self._whole: Model | None = None
        if extractor_path is None:
            self._whole = open_file(Path(lightglue_path), "end2end", for_matching(device), threads=threads)
            return
        self._extractor = open_file(Path(extractor_path), "extractor", device, threads=threads)
        matcher = open_file(Path(lightglue_path), "matcher", for_matching(device), threads=threads)
        if self._extractor.family != matcher.family:
            raise ModelError(
                f"{lightglue_path} is LightGlue for {matcher.family}, but {extractor_path} is an extractor of "
                f"{self._extractor.family}: take the two that one `lgbatch export` has written"
            )
        self._matcher = SingleGraph(matcher, filter_threshold)

    def run(
        self, image0: FloatArray, image1: FloatArray, scales0: FloatArray, scales1: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """The matched keypoints of two photos, (K, 2) each: row k of one matches row k of the other.

        Images are (1, 3, H, W), or (1, 1, H, W) in gray, as load_image gives them; the keypoints are in pixels of the
        photos before they were scaled, top-left pixel centre (0, 0).
        """
        ((points0, points1),) = self.run_many([(image0, image1, scales0, scales1)])
        return points0, points1

    def run_many(self, pairs: Sequence[Pair]) -> list[tuple[FloatArray, FloatArray]]:
        """As `run`, for pairs of photos, in batches. An image that is in several pairs is extracted once.

        It is known again by being the same array, not one with the same values.
        """
        if self._whole:
            return [self._run_whole(self._whole, pair) for pair in pairs]
        images = {id(image): image for pair in pairs for image in pair[:2]}
        features = {key: self._extract(image) for key, image in images.items()}
        sides = [(features[id(pair[0])], features[id(pair[1])]) for pair in pairs]
        found: list[tuple[FloatArray, FloatArray]] = [(np.zeros((0, 2), np.float32),) * 2] * len(pairs)
        full = [i for i, (first, second) in enumerate(sides) if len(first.keypoints) and len(second.keypoints)]
        lengths = [(len(sides[i][0].keypoints), len(sides[i][1].keypoints)) for i in full]
        for group in pack(lengths, TOKENS[self._matcher.model.device]):
            batch = [full[i] for i in group]
            for i, matches in zip(batch, self._matcher.match([sides[i] for i in batch]), strict=True):
                found[i] = _matched(sides[i], matches, pairs[i])
        return found

    def _run_whole(self, model: Model, pair: Pair) -> tuple[FloatArray, FloatArray]:
        feed = {"max_keypoints": self._max_keypoints, "threshold": self._threshold}
        for side in (0, 1):
            feed |= {f"image{side}": _rgb(pair[side]), f"scales{side}": pair[2 + side][None]}
        given = {name: feed[name] for name in model.session.inputs}
        keypoints0, keypoints1, _, _, matches0, _ = model.run(given)
        rows = np.flatnonzero(matches0[0] >= 0)
        return keypoints0[0, rows], keypoints1[0, matches0[0, rows]]

    def _extract(self, image: Array) -> Features:
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
    """An image that may be gray in three channels. Raises InputError when it is none."""
    if image.ndim != 4 or image.shape[0] != 1 or image.shape[1] not in (1, 3):
        raise InputError(f"an image is (1, 3, H, W), or (1, 1, H, W) in gray, not {image.shape}: see load_image")
    return np.ascontiguousarray(np.broadcast_to(image, (1, 3, *image.shape[2:])), dtype=np.float32)


def _device(providers: Sequence[str]) -> Device:
    """Of the first of these providers that can be used here; the others before it are told, unless it is CUDA."""
    by_name = {provider.name: device for device, provider in PROVIDERS.items()}
    for name in providers:
        device = by_name.get(name)
        lacking = unavailable_reason(device) if device else "lgbatch does not know it"
        if device and not lacking:
            return device
        if device != "cuda":  # which is asked for by default
            print(f"LightGlueRunner does without {name}: {lacking}", file=sys.stderr)
    return "cpu"


def _matched(sides: tuple[Features, Features], matches: Matches, pair: Pair) -> tuple[FloatArray, FloatArray]:
    first, second = (
        (features.keypoints[matches.indices[:, side]] + np.float32(0.5)) / pair[2 + side] - np.float32(0.5)
        for side, features in enumerate(sides)
    )
    return first, second
