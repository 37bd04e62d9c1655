"""Portable models: each is exported, run in ONNX Runtime, and compared with the models that lgbatch itself runs.

Those are compared with PyTorch in test_export.py, test_aliked.py, test_xfeat.py and during the export. All tests of
this file take half an hour.
"""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from lgbatch import LightGlueRunner, load_image
from lgbatch.cli import main as cli
from lgbatch.export.extractors import EXTRACTORS, KINDS
from lgbatch.export.models import ensure_models
from lgbatch.export.weights.catalog import WEIGHTS
from lgbatch.runtime.registry import FP32_ONLY, family, model_path, shape, stage_names

pytestmark = pytest.mark.weights

MAX_KEYPOINTS = 300
WITH_LIGHTGLUE = [name for name in EXTRACTORS if "matcher" in EXTRACTORS[name]]
WITH_INT8 = [name for name in WITH_LIGHTGLUE if family(name) not in FP32_ONLY]
MIN_AGREEMENT = {"fp32": 0.99, "fp16": 0.9, "int8": 0.97}
"""Minimum fraction of matches shared with the fp32 models. In fp16, some of DISK's maxima move by a pixel."""

Array = NDArray[Any]


def export(*options: object) -> dict[str, Path]:
    """Run `lgbatch export`. Returns the paths of the files that it wrote, by name."""
    result = CliRunner().invoke(cli.app, ["export", *map(str, options), "--json"])
    assert result.exit_code == 0, result.stderr
    return {Path(file).name: Path(file) for file in json.loads(result.stdout)["files"]}


def ensure_own_models(models: Path, extractor: str) -> None:
    """Export lgbatch's own models for comparison. Skips the test if weights are neither cached nor in a package."""
    missing = [file for file in EXTRACTORS[extractor].values() if WEIGHTS[file].package is None]
    if not all((models / "weights" / file).exists() for file in missing):
        pytest.skip(f"needs {' and '.join(missing)}")
    ensure_models(models, extractor, KINDS if extractor in WITH_LIGHTGLUE else ["extractor"])


def run(path: Path, feed: dict[str, Array]) -> dict[str, Array]:
    """Run a model on those arrays of `feed` that it has inputs for. Returns its outputs by name."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    outputs = [output.name for output in session.get_outputs()]
    inputs = {value.name for value in (*session.get_inputs(), *session.get_overridable_initializers())}
    arrays = {name: array for name, array in feed.items() if name in inputs}
    return dict(zip(outputs, session.run(None, arrays), strict=True))


def agreement(actual: tuple[Array, Array], expected: tuple[Array, Array]) -> float:
    """Intersection over union of two sets of matches.

    Each set is two arrays (K, 2) of coordinates, one per photo. Matches are the same up to half a pixel on both sides.
    """
    first, second = np.hstack(actual), np.hstack(expected)
    distance = np.abs(first[:, None] - second[None]).max(2)
    shared = int((distance.min(1) < 0.5).sum())
    return shared / (len(first) + len(second) - shared)


def assert_end2end(path: Path, models: Path, extractor: str, gallery: Path, min_agreement: float) -> None:
    """Compare an end-to-end model, run directly and by LightGlueRunner, with lgbatch's own models."""
    runner = LightGlueRunner(
        model_path(models, extractor, "matcher"),
        model_path(models, extractor, "extractor"),
        max_keypoints=MAX_KEYPOINTS,
    )
    (image0, scales0), (image1, scales1) = (load_image(gallery / f"view_0{i}.jpg", resize=320) for i in (0, 1))
    outputs = run(
        path,
        {
            "image0": image0,
            "image1": image1,
            "scales0": scales0[None],
            "scales1": scales1[None],
            "max_keypoints": np.array(MAX_KEYPOINTS),
            "threshold": np.array(0.1, np.float32),
        },
    )
    rows = np.flatnonzero(outputs["matches0"][0] >= 0)
    matched = outputs["keypoints0"][0, rows], outputs["keypoints1"][0, outputs["matches0"][0, rows]]
    expected = runner.run(image0, image1, scales0, scales1)
    assert len(rows) > 50 and (outputs["scores"][0, rows] > 0.1).all()
    assert agreement(matched, expected) >= min_agreement
    by_runner = LightGlueRunner(path, max_keypoints=MAX_KEYPOINTS).run(image0, image1, scales0, scales1)
    np.testing.assert_array_equal(np.hstack(by_runner), np.hstack(matched))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("extractor", WITH_LIGHTGLUE)
@pytest.mark.slow
def test_end_to_end_models_agree_with_lgbatchs_own(
    extractor: str, precision: str, models: Path, gallery: Path, tmp_path: Path
) -> None:
    options = [] if precision == "fp32" else [f"--{precision}"]
    if extractor == "sift" or (precision == "int8" and extractor not in WITH_INT8):
        result = CliRunner().invoke(cli.app, ["export", extractor, "--end2end", *options, "-o", str(tmp_path)])
        assert result.exit_code == 2 and (
            "is not a network" in result.stderr or "int8 is not available" in result.stderr
        )
        return
    ensure_own_models(models, extractor)
    (path,) = export(extractor, "--end2end", *options, "-o", tmp_path).values()
    assert_end2end(path, models, extractor, gallery, MIN_AGREEMENT[precision])
    # A batch of two unequal pairs gives the same matches as single pairs; a photo without keypoints matches nothing.
    (image0, scales0), (image1, scales1) = (load_image(gallery / f"view_0{i}.jpg", resize=320) for i in (2, 3))
    limits = {"max_keypoints": np.array(100), "threshold": np.array(0.1, np.float32)}
    scales = {"scales0": scales0[None], "scales1": scales1[None]}
    scales_twice = {name: np.concatenate([value, value]) for name, value in scales.items()}
    uniform = np.full_like(image0, 0.5)
    alone = run(path, {"image0": image0, "image1": image1} | scales | limits)
    pairs = {"image0": np.concatenate([image0, uniform]), "image1": np.concatenate([image1, image1])}
    batch = run(path, pairs | scales_twice | limits)
    first = batch["matches0"][0, : alone["matches0"].shape[1]]
    assert (first >= 0).sum() > 20 and np.mean(first == alone["matches0"][0]) > 0.98
    assert (batch["matches0"][1] >= 0).sum() <= batch["counts0"][1]


def test_size_batch_and_keypoint_count_can_be_fixed_in_half_precision(
    models: Path, gallery: Path, tmp_path: Path
) -> None:
    image = load_image(gallery / "view_00.jpg", resize=320)[0]
    size = f"{image.shape[2]}x{image.shape[3]}"
    options = ["--end2end", "--fp16", "--static", size, "--batch", 1, "--max-keypoints", MAX_KEYPOINTS, "-o", tmp_path]
    (path,) = export("disk", *options).values()
    assert path.name == "disk-end2end-fp16.onnx"
    model = onnx.load(path)
    shapes = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in model.graph.input}
    assert shapes["image0"] == shapes["image1"] == list(image.shape) and "max_keypoints" not in shapes
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["lgbatch.kind"] == "end2end" and "Apache-2.0" in metadata["lgbatch.license"]
    half_weights = [w for w in model.graph.initializer if w.data_type == onnx.TensorProto.FLOAT16]
    assert len(half_weights) > 50
    assert_end2end(path, models, "disk", gallery, MIN_AGREEMENT["fp16"])


@pytest.mark.parametrize(
    ("extractor", "opset"),
    [
        ("disk", 18),
        ("aliked-n16", 18),
        ("aliked-n16", 22),
        ("xfeat", 18),
        ("disk", 23),
    ],
)
@pytest.mark.slow
def test_end_to_end_models_of_older_opsets(
    extractor: str, opset: int, models: Path, gallery: Path, tmp_path: Path
) -> None:
    ensure_own_models(models, extractor)
    (path,) = export(extractor, "--end2end", "--opset", opset, "-o", tmp_path).values()
    model = onnx.load(path)
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == opset
    operators = {node.op_type for node in model.graph.node}
    assert not operators & {"Attention", "RotaryEmbedding"}
    assert ("DeformConv" in operators) == (extractor == "aliked-n16" and opset >= 19)
    assert_end2end(path, models, extractor, gallery, MIN_AGREEMENT["fp32"])


def test_deformable_convolution_without_deformconv(models: Path, gallery: Path, tmp_path: Path) -> None:
    ensure_own_models(models, "aliked-t16")
    path = export("aliked-t16", "--opset", 18, "-o", tmp_path)["aliked-t16-extractor.onnx"]
    assert "DeformConv" not in {node.op_type for node in onnx.load(path).graph.node}
    # In the second image, the smallest level of the pyramid is a single pixel.
    for image in (load_image(gallery / "view_00.jpg", resize=320)[0], np.random.default_rng(0).random((1, 3, 20, 30))):
        feed: dict[str, Array] = {"image": image.astype(np.float32), "max_keypoints": np.array(MAX_KEYPOINTS)}
        actual, own = run(path, feed), run(model_path(models, "aliked-t16", "extractor"), feed)
        np.testing.assert_allclose(actual["keypoints"], own["keypoints"], atol=1e-2)
        np.testing.assert_allclose(actual["descriptors"], own["descriptors"], atol=1e-3)


@pytest.mark.parametrize(
    "extractor",
    ["aliked-t16", *(pytest.param(name, marks=pytest.mark.slow) for name in ("disk", "aliked-n16", "xfeat"))],
)
def test_the_detection_threshold_is_an_optional_input(
    extractor: str, models: Path, gallery: Path, tmp_path: Path
) -> None:
    ensure_own_models(models, extractor)
    path = export(extractor, "-o", tmp_path)[f"{extractor}-extractor.onnx"]
    image = load_image(gallery / "view_00.jpg", resize=320)[0]
    feed: dict[str, Array] = {"image": image, "max_keypoints": np.array(10**5)}
    default = run(path, feed)
    own = run(model_path(models, extractor, "extractor"), feed)
    count = int(default["counts"][0])
    np.testing.assert_array_equal(default["keypoints"][0, :count], own["keypoints"][0, :count])
    threshold = np.median(default["scores"][0, :count])
    few = run(path, feed | {"detection_threshold": np.array(threshold, np.float32)})
    few_count = int(few["counts"][0])
    assert 0.2 * count < few_count < 0.99 * count
    default_points = {(*point,) for point in default["keypoints"][0, :count].round(1)}
    assert np.mean([(*point,) in default_points for point in few["keypoints"][0, :few_count].round(1)]) > 0.99


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("extractor", list(EXTRACTORS))
@pytest.mark.slow
def test_separate_models_agree_with_lgbatchs_own(
    extractor: str, precision: str, models: Path, gallery: Path, tmp_path: Path
) -> None:
    options = [] if precision == "fp32" else [f"--{precision}"]
    if precision == "int8" and extractor not in WITH_INT8:
        result = CliRunner().invoke(cli.app, ["export", extractor, "--int8", "-o", str(tmp_path)])
        assert result.exit_code == 2 and "int8 is not available for" in result.stderr
        return
    ensure_own_models(models, extractor)
    files = export(extractor, *options, "-o", tmp_path)
    if "extractor" not in EXTRACTORS[extractor]:
        assert not any("-extractor" in name for name in files)
        return
    image = load_image(gallery / "view_00.jpg", resize=320)[0]
    feed: dict[str, Array] = {"image": image, "max_keypoints": np.array(MAX_KEYPOINTS)}
    own = run(model_path(models, extractor, "extractor"), feed)
    if precision != "int8":
        (name,) = (name for name in files if "-extractor" in name)
        actual = run(files[name], feed)
        points, own_points = actual["keypoints"][0, : actual["counts"][0]], own["keypoints"][0, : own["counts"][0]]
        distance = np.linalg.norm(points[:, None] - own_points[None], axis=2).min(1)
        assert np.mean(distance < 0.1) >= (0.999 if precision == "fp32" else 0.9)
    if extractor not in WITH_LIGHTGLUE:
        return
    count = int(own["counts"][0])
    size = np.array([image.shape[:1:-1]], np.float32)
    pair = {f"{name}{side}": own[name][:, :count] for name in ("keypoints", "descriptors") for side in (0, 1)}
    pair |= {f"size{side}": size for side in (0, 1)} | {f"lengths{side}": np.array([count]) for side in (0, 1)}
    pair |= {"threshold": np.array(0.1, np.float32)}
    (name,) = (name for name in files if "-matcher" in name)
    matches = run(files[name], pair)["matches0"][0]
    assert np.mean(matches == np.arange(count)) > 0.97
    # Each stage on the outputs of lgbatch's own stages.
    stages = model_path(models, extractor, "stages")
    image_inputs = {name: pair[f"{name}0"] for name in ("keypoints", "descriptors", "size", "lengths")}
    stem = run(stages / "stem.onnx", image_inputs)
    state = {f"{name}{side}": value for name, value in stem.items() for side in (0, 1)} | {
        name: pair[name] for name in ("lengths0", "lengths1", "threshold")
    }
    folder = tmp_path / next(path.parent.name for path in files.values() if "-stages" in path.parent.name)
    layers = shape(extractor).layers
    assert {path.stem for path in folder.iterdir()} == set(stage_names(layers))
    for stage in [f"layer{i}" for i in range(layers)]:
        expected, actual = (run(path / f"{stage}.onnx", state) for path in (stages, folder))
        scale = np.abs(expected["y0"]).max()
        assert np.abs(actual["y0"] - expected["y0"]).max() < (1e-4 if precision == "fp32" else 0.05) * scale
        state |= {"x0": expected["y0"], "x1": expected["y1"]}
    assert np.mean(run(folder / f"head{layers - 1}.onnx", state)["matches0"][0] == np.arange(count)) > 0.97


@pytest.mark.parametrize(("extractor", "size"), [("disk", (2000, 1500)), ("aliked-n16", (4000, 3000))])
@pytest.mark.slow
def test_half_precision_keeps_keypoints_of_a_large_photo_in_place(
    extractor: str, size: tuple[int, int], models: Path, gallery: Path, tmp_path: Path
) -> None:
    files = export(extractor, "--fp16", "-o", tmp_path)
    photo = cv2.resize(cv2.imread(str(gallery / "view_00.jpg")), size, interpolation=cv2.INTER_CUBIC)
    image = np.ascontiguousarray(photo[..., ::-1].transpose(2, 0, 1)[None], dtype=np.float32) / 255
    feed: dict[str, Array] = {"image": image, "max_keypoints": np.array(2048)}
    exact = run(model_path(models, extractor, "extractor"), feed)["keypoints"][0]
    half = run(files[f"{extractor}-extractor-fp16.onnx"], feed)["keypoints"][0]
    distance = np.linalg.norm(half[:, None] - exact[None], axis=2).min(1)
    within = {limit: np.mean(distance <= limit) for limit in (0.05, 1.5)}
    print(f"\n{extractor}: {within[0.05]:.2%} within 0.05 px, {within[1.5]:.2%} within 1.5 px")
    assert within[0.05] >= 0.9


def test_impossible_exports_are_refused_in_one_line(tmp_path: Path) -> None:
    for options, reason in (
        (["aliked-t16", "--end2end"], "no LightGlue has been published for aliked-t16"),
        (["disk", "--fp16", "--int8"], "exclude each other"),
        (["disk", "--static", "large"], "give height and width"),
        (["disk", "--end2end", "--weights", str(tmp_path)], "disk-depth-save.pth"),
    ):
        result = CliRunner().invoke(cli.app, ["export", *options, "-o", str(tmp_path)])
        assert result.exit_code == 2 and reason in result.stderr and result.stderr.count("\n") == 1
    assert family("aliked-t16") == "aliked" and not list(tmp_path.iterdir())
