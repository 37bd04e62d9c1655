"""Models for other programs: each is exported, run in ONNX Runtime, and compared with what the tool itself runs.

Those are compared with PyTorch in test_export.py, test_aliked.py and where they are made. By hand, half an hour:

    python -m pytest tests/test_others.py
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
from lgbatch.export.models import EXTRACTORS, KINDS, ensure_models
from lgbatch.export.weights.catalog import WEIGHTS
from lgbatch.runtime.registry import FP32_ONLY, family, model_path, shape, stage_names

pytestmark = pytest.mark.weights

MOST = 300
WITH_LIGHTGLUE = [name for name in EXTRACTORS if "matcher" in EXTRACTORS[name]]
WITH_INT8 = [name for name in WITH_LIGHTGLUE if family(name) not in FP32_ONLY]
LEAST = {"fp32": 0.99, "fp16": 0.9, "int8": 0.97}
"""Share of matches that are those of single precision. In half precision DISK's maxima move a pixel here and there."""

Array = NDArray[Any]


def export(*options: object) -> dict[str, Path]:
    """Run `lgbatch export`; the files that it wrote, by name."""
    result = CliRunner().invoke(cli.app, ["export", *map(str, options), "--json"])
    assert result.exit_code == 0, result.stderr
    return {Path(file).name: Path(file) for file in json.loads(result.stdout)["files"]}


def make(models: Path, extractor: str) -> None:
    """The tool's own models, to compare with; skips where their weights are in no package, nor in the cache."""
    missing = [file for file in EXTRACTORS[extractor].values() if WEIGHTS[file].package is None]
    if not all((models / "weights" / file).exists() for file in missing):
        pytest.skip(f"needs {' and '.join(missing)}")
    ensure_models(models, extractor, KINDS if extractor in WITH_LIGHTGLUE else ["extractor"])


def run(path: Path, feed: dict[str, Array]) -> dict[str, Array]:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [slot.name for slot in session.get_outputs()]
    wanted = {slot.name for slot in (*session.get_inputs(), *session.get_overridable_initializers())}
    values = {name: value for name, value in feed.items() if name in wanted}
    return dict(zip(names, session.run(None, values), strict=True))


def share_of_matches(found: tuple[Array, Array], expected: tuple[Array, Array]) -> float:
    """Share of all matches (K, 2) and (K, 2) that the other has too, up to half a pixel on both sides."""
    ours, theirs = np.hstack(found), np.hstack(expected)
    distance = np.abs(ours[:, None] - theirs[None]).max(2)
    both = int((distance.min(1) < 0.5).sum())
    return both / (len(ours) + len(theirs) - both)


def assert_end2end(path: Path, models: Path, extractor: str, gallery: Path, least: float) -> None:
    """Against the tool's own models, by themselves and by the runner."""
    runner = LightGlueRunner(
        model_path(models, extractor, "matcher"), model_path(models, extractor, "extractor"), max_keypoints=MOST
    )
    (image0, scales0), (image1, scales1) = (load_image(gallery / f"view_0{i}.jpg", resize=320) for i in (0, 1))
    told = run(
        path,
        {
            "image0": image0,
            "image1": image1,
            "scales0": scales0[None],
            "scales1": scales1[None],
            "max_keypoints": np.array(MOST),
            "threshold": np.array(0.1, np.float32),
        },
    )
    rows = np.flatnonzero(told["matches0"][0] >= 0)
    found = told["keypoints0"][0, rows], told["keypoints1"][0, told["matches0"][0, rows]]
    expected = runner.run(image0, image1, scales0, scales1)
    assert len(rows) > 50 and (told["scores"][0, rows] > 0.1).all()
    assert share_of_matches(found, expected) >= least
    whole = LightGlueRunner(path, max_keypoints=MOST).run(image0, image1, scales0, scales1)
    np.testing.assert_array_equal(np.hstack(whole), np.hstack(found))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("extractor", WITH_LIGHTGLUE)
@pytest.mark.slow
def test_end_to_end(extractor: str, precision: str, models: Path, gallery: Path, tmp_path: Path) -> None:
    options = [] if precision == "fp32" else [f"--{precision}"]
    if extractor == "sift" or (precision == "int8" and extractor not in WITH_INT8):
        result = CliRunner().invoke(cli.app, ["export", extractor, "--end2end", *options, "-o", str(tmp_path)])
        assert result.exit_code == 2 and ("is no network" in result.stderr or "no int8" in result.stderr)
        return
    make(models, extractor)
    (path,) = export(extractor, "--end2end", *options, "-o", tmp_path).values()
    assert_end2end(path, models, extractor, gallery, LEAST[precision])
    # A batch of two unequal pairs gives what each gives; a photo without keypoints matches nothing.
    (image0, scales0), (image1, scales1) = (load_image(gallery / f"view_0{i}.jpg", resize=320) for i in (2, 3))
    common = {"max_keypoints": np.array(100), "threshold": np.array(0.1, np.float32)}
    scales = {"scales0": scales0[None], "scales1": scales1[None]}
    both = {name: np.concatenate([value, value]) for name, value in scales.items()}
    flat = np.full_like(image0, 0.5)
    alone = run(path, {"image0": image0, "image1": image1} | scales | common)
    pairs = {"image0": np.concatenate([image0, flat]), "image1": np.concatenate([image1, image1])}
    together = run(path, pairs | both | common)
    first = together["matches0"][0, : alone["matches0"].shape[1]]
    assert (first >= 0).sum() > 20 and np.mean(first == alone["matches0"][0]) > 0.98
    assert (together["matches0"][1] >= 0).sum() <= together["counts0"][1]


def test_one_size_one_batch_one_count_in_half_precision(models: Path, gallery: Path, tmp_path: Path) -> None:
    image = load_image(gallery / "view_00.jpg", resize=320)[0]
    size = f"{image.shape[2]}x{image.shape[3]}"
    options = ["--end2end", "--fp16", "--static", size, "--batch", 1, "--max-keypoints", MOST, "-o", tmp_path]
    (path,) = export("disk", *options).values()
    assert path.name == "disk-end2end-fp16.onnx"
    model = onnx.load(path)
    shapes = {slot.name: [d.dim_value for d in slot.type.tensor_type.shape.dim] for slot in model.graph.input}
    assert shapes["image0"] == shapes["image1"] == list(image.shape) and "max_keypoints" not in shapes
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["lgbatch.kind"] == "end2end" and "Apache-2.0" in metadata["lgbatch.license"]
    halves = [slot for slot in model.graph.initializer if slot.data_type == onnx.TensorProto.FLOAT16]
    assert len(halves) > 50
    assert_end2end(path, models, "disk", gallery, LEAST["fp16"])


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
def test_end_to_end_with_operators_of_an_older_version(
    extractor: str, opset: int, models: Path, gallery: Path, tmp_path: Path
) -> None:
    make(models, extractor)
    (path,) = export(extractor, "--end2end", "--opset", opset, "-o", tmp_path).values()
    model = onnx.load(path)
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == opset
    operators = {node.op_type for node in model.graph.node}
    assert not operators & {"Attention", "RotaryEmbedding"}
    assert ("DeformConv" in operators) == (extractor == "aliked-n16" and opset >= 22)
    assert_end2end(path, models, extractor, gallery, LEAST["fp32"])


def test_deformable_convolution_without_its_operator(models: Path, gallery: Path, tmp_path: Path) -> None:
    make(models, "aliked-t16")
    path = export("aliked-t16", "--opset", 18, "-o", tmp_path)["aliked-t16-extractor.onnx"]
    assert "DeformConv" not in {node.op_type for node in onnx.load(path).graph.node}
    # The second is so small that the smallest level of the pyramid is one pixel.
    for image in (load_image(gallery / "view_00.jpg", resize=320)[0], np.random.default_rng(0).random((1, 3, 20, 30))):
        feed: dict[str, Array] = {"image": image.astype(np.float32), "max_keypoints": np.array(MOST)}
        found, own = run(path, feed), run(model_path(models, "aliked-t16", "extractor"), feed)
        np.testing.assert_allclose(found["keypoints"], own["keypoints"], atol=1e-2)
        np.testing.assert_allclose(found["descriptors"], own["descriptors"], atol=1e-3)


@pytest.mark.parametrize(
    "extractor",
    ["aliked-t16", *(pytest.param(name, marks=pytest.mark.slow) for name in ("disk", "aliked-n16", "xfeat"))],
)
def test_the_detection_threshold_is_an_input_that_may_be_left_out(
    extractor: str, models: Path, gallery: Path, tmp_path: Path
) -> None:
    make(models, extractor)
    path = export(extractor, "-o", tmp_path)[f"{extractor}-extractor.onnx"]
    image = load_image(gallery / "view_00.jpg", resize=320)[0]
    feed: dict[str, Array] = {"image": image, "max_keypoints": np.array(10**5)}
    usual = run(path, feed)
    own = run(model_path(models, extractor, "extractor"), feed)
    count = int(usual["counts"][0])
    np.testing.assert_array_equal(usual["keypoints"][0, :count], own["keypoints"][0, :count])
    least = np.median(usual["scores"][0, :count])
    few = run(path, feed | {"detection_threshold": np.array(least, np.float32)})
    fewer = int(few["counts"][0])
    assert 0.2 * count < fewer < 0.99 * count
    theirs = {(*point,) for point in usual["keypoints"][0, :count].round(1)}
    assert np.mean([(*point,) in theirs for point in few["keypoints"][0, :fewer].round(1)]) > 0.99


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("extractor", list(EXTRACTORS))
@pytest.mark.slow
def test_parts(extractor: str, precision: str, models: Path, gallery: Path, tmp_path: Path) -> None:
    options = [] if precision == "fp32" else [f"--{precision}"]
    if precision == "int8" and extractor not in WITH_INT8:
        result = CliRunner().invoke(cli.app, ["export", extractor, "--int8", "-o", str(tmp_path)])
        assert result.exit_code == 2 and "there is no int8 of" in result.stderr
        return
    make(models, extractor)
    files = export(extractor, *options, "-o", tmp_path)
    if "extractor" not in EXTRACTORS[extractor]:
        assert not any("-extractor" in name for name in files)
        return
    image = load_image(gallery / "view_00.jpg", resize=320)[0]
    feed: dict[str, Array] = {"image": image, "max_keypoints": np.array(MOST)}
    exact = run(model_path(models, extractor, "extractor"), feed)
    if precision != "int8":
        (name,) = (name for name in files if "-extractor" in name)
        made = run(files[name], feed)
        points, theirs = made["keypoints"][0, : made["counts"][0]], exact["keypoints"][0, : exact["counts"][0]]
        near = np.linalg.norm(points[:, None] - theirs[None], axis=2).min(1)
        assert np.mean(near < 0.1) >= (0.999 if precision == "fp32" else 0.9)
    if extractor not in WITH_LIGHTGLUE:
        return
    count = int(exact["counts"][0])
    size = np.array([image.shape[:1:-1]], np.float32)
    pair = {f"{name}{side}": exact[name][:, :count] for name in ("keypoints", "descriptors") for side in (0, 1)}
    pair |= {f"size{side}": size for side in (0, 1)} | {f"lengths{side}": np.array([count]) for side in (0, 1)}
    pair |= {"threshold": np.array(0.1, np.float32)}
    (name,) = (name for name in files if "-matcher" in name)
    matches = run(files[name], pair)["matches0"][0]
    assert np.mean(matches == np.arange(count)) > 0.97
    # Each stage on what the exact ones make.
    stages = model_path(models, extractor, "stages")
    one = {name: pair[f"{name}0"] for name in ("keypoints", "descriptors", "size", "lengths")}
    stem = run(stages / "stem.onnx", one)
    state = {f"{name}{side}": value for name, value in stem.items() for side in (0, 1)} | {
        name: pair[name] for name in ("lengths0", "lengths1", "threshold")
    }
    folder = tmp_path / next(path.parent.name for path in files.values() if "-stages" in path.parent.name)
    layers = shape(extractor).layers
    assert {path.stem for path in folder.iterdir()} == set(stage_names(layers))
    for stage in [f"layer{i}" for i in range(layers)]:
        expected, made = (run(at / f"{stage}.onnx", state) for at in (stages, folder))
        scale = np.abs(expected["y0"]).max()
        assert np.abs(made["y0"] - expected["y0"]).max() < (1e-4 if precision == "fp32" else 0.05) * scale
        state |= {"x0": expected["y0"], "x1": expected["y1"]}
    assert np.mean(run(folder / f"head{layers - 1}.onnx", state)["matches0"][0] == np.arange(count)) > 0.97


@pytest.mark.parametrize(("extractor", "size"), [("disk", (2000, 1500)), ("aliked-n16", (4000, 3000))])
@pytest.mark.slow
def test_half_precision_keeps_places_in_a_large_photo(
    extractor: str, size: tuple[int, int], models: Path, gallery: Path, tmp_path: Path
) -> None:
    files = export(extractor, "--fp16", "-o", tmp_path)
    photo = cv2.resize(cv2.imread(str(gallery / "view_00.jpg")), size, interpolation=cv2.INTER_CUBIC)
    image = np.ascontiguousarray(photo[..., ::-1].transpose(2, 0, 1)[None], dtype=np.float32) / 255
    feed: dict[str, Array] = {"image": image, "max_keypoints": np.array(2048)}
    exact = run(model_path(models, extractor, "extractor"), feed)["keypoints"][0]
    half = run(files[f"{extractor}-extractor-fp16.onnx"], feed)["keypoints"][0]
    near = np.linalg.norm(half[:, None] - exact[None], axis=2).min(1)
    print(f"\n{extractor}: {np.mean(near <= 0.05):.2%} within 0.05 px, {np.mean(near <= 1.5):.2%} within 1.5 px")
    assert np.mean(near <= 0.05) >= 0.9


def test_what_cannot_be_is_told_in_one_line(tmp_path: Path) -> None:
    for options, told in (
        (["aliked-t16", "--end2end"], "no LightGlue has been published for aliked-t16"),
        (["disk", "--fp16", "--int8"], "exclude each other"),
        (["disk", "--static", "large"], "give height and width"),
        (["disk", "--end2end", "--weights", str(tmp_path)], "disk-depth-save.pth"),
    ):
        result = CliRunner().invoke(cli.app, ["export", *options, "-o", str(tmp_path)])
        assert result.exit_code == 2 and told in result.stderr and result.stderr.count("\n") == 1
    assert family("aliked-t16") == "aliked" and not list(tmp_path.iterdir())
