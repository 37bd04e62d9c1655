"""LightGlueRunner and load_image, against the published network and against single runs."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lgbatch
from lgbatch import LightGlueRunner, load_image, rgb_to_grayscale
from lgbatch.config import Settings
from lgbatch.errors import InputError, ModelError
from lgbatch.export import parity
from lgbatch.export.extractors import KINDS
from lgbatch.export.models import ensure_models
from lgbatch.features.network import Extractor
from lgbatch.kernels import library
from lgbatch.photos.crawl import crawl
from lgbatch.photos.decode import decode
from lgbatch.runtime.registry import model_path
from tests.helpers import upstream

MAX_KEYPOINTS = 300


@pytest.fixture(scope="module")
def runner(models: Path) -> LightGlueRunner:
    return LightGlueRunner(
        extractor_path=model_path(models, "disk", "extractor"),
        lightglue_path=model_path(models, "disk", "matcher"),
        providers=["CPUExecutionProvider"],
        max_keypoints=MAX_KEYPOINTS,
    )


@pytest.mark.weights
def test_matched_keypoints_equal_those_of_the_published_network(
    models: Path, gallery: Path, runner: LightGlueRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(library.ISA_VARIABLE, library.NO_KERNELS)  # the runner has DISK in single precision
    paths = gallery / "view_00.jpg", gallery / "view_02.jpg"
    (image0, scales0), (image1, scales1) = (load_image(path, resize=320) for path in paths)
    assert image0.shape[:2] == (1, 3) and max(image0.shape) == 320 and 0 <= image0.min() < image0.max() <= 1
    points0, points1 = runner.run(image0, image1, scales0, scales1)

    extractor = Extractor(models, Settings(extractor="disk", max_keypoints=MAX_KEYPOINTS, resize=320))
    first, second = (extractor.extract([decode(crawl(gallery).images[i], 320)])[0] for i in (0, 2))
    network = upstream.lightglue("disk", depth_confidence=-1, width_confidence=-1)
    expected, _ = upstream.match(network, first, second)
    theirs = np.array([[*first.keypoints[a], *second.keypoints[b]] for a, b in expected])
    ours = np.concatenate([points0, points1], axis=1)
    both = len(parity.same_keypoints(ours, theirs)[0])
    assert len(expected) > 50 and both >= 0.99 * (len(ours) + len(theirs) - both)


@pytest.mark.weights
def test_run_many_equals_run_for_each_pair(gallery: Path, runner: LightGlueRunner) -> None:
    sizes = {"view_00.jpg": 320, "view_01.jpg": 256, "view_02.jpg": 200}
    loaded = [load_image(gallery / name, resize=size) for name, size in sizes.items()]
    tiny = np.full((1, 3, 4, 4), 0.5, np.float32), np.ones(2, np.float32)
    pairs = [(a[0], b[0], a[1], b[1]) for a, b in [(0, 1), (1, 2), (2, 0)] for a, b in [(loaded[a], loaded[b])]]
    together = runner.run_many([*pairs, (tiny[0], loaded[0][0], tiny[1], loaded[0][1])])
    for pair, (points0, points1) in zip(pairs, together, strict=False):
        alone = runner.run(*pair)
        assert len(points0) > 30
        np.testing.assert_allclose(points0, alone[0], atol=1e-3)
        np.testing.assert_allclose(points1, alone[1], atol=1e-3)
    assert [points.shape for points in together[-1]] == [(0, 2), (0, 2)]


@pytest.mark.weights
def test_gray_images_are_matched(gallery: Path, runner: LightGlueRunner) -> None:
    image, scales = load_image(gallery / "view_00.jpg", resize=200)
    gray, _ = load_image(gallery / "view_00.jpg", resize=200, grayscale=True)
    np.testing.assert_array_equal(gray, rgb_to_grayscale(image))
    assert gray.shape == (1, 1, *image.shape[2:])
    np.testing.assert_array_equal(rgb_to_grayscale(image[0]), gray[0])
    np.testing.assert_array_equal(load_image(gallery / "view_00.jpg", True, 200)[0], gray)
    points0, points1 = runner.run(gray, gray, scales, scales)
    assert len(points0) > 50
    np.testing.assert_array_equal(points0, points1)
    with pytest.raises(InputError, match="load it with load_image"):
        runner.run(image[0], image, scales, scales)


@pytest.mark.weights
def test_models_that_do_not_fit_together_are_refused(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extractor, matcher = (model_path(models, "disk", kind) for kind in ("extractor", "matcher"))
    ensure_models(models, "aliked-n16", KINDS)
    with pytest.raises(ModelError, match=r"is LightGlue for aliked, but .* is the extractor of disk"):
        LightGlueRunner(model_path(models, "aliked-n16", "matcher"), extractor)
    with pytest.raises(ModelError, match="is the matcher of disk, not a model of the kind extractor"):
        LightGlueRunner(matcher, matcher)
    (tmp_path / "cut.onnx").write_bytes(matcher.read_bytes()[:5000])
    with pytest.raises(ModelError, match=r"cut\.onnx cannot be opened"):
        LightGlueRunner(tmp_path / "cut.onnx", extractor)
    with pytest.raises(ModelError, match=r"no none\.onnx in"):
        LightGlueRunner(matcher, tmp_path / "none.onnx")
    LightGlueRunner(matcher, extractor, providers=[("TensorrtExecutionProvider", {}), "CPUExecutionProvider"])
    assert "TensorrtExecutionProvider is unavailable (" in capsys.readouterr().err


def test_importing_lgbatch_imports_no_heavy_package(tmp_path: Path) -> None:
    script = "import lgbatch, sys; print(sorted({'numpy', 'onnxruntime', 'cv2', 'torch'} & set(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = lgbatch.nothing
    with pytest.raises(InputError, match=r"none\.jpg: cannot be read"):
        load_image(tmp_path / "none.jpg")
