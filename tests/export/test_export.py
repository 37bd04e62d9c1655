"""The exported models against the published PyTorch networks, on real weights."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray

from lgbatch import errors
from lgbatch.config import Settings
from lgbatch.export import parity, reference
from lgbatch.export.extractors import KINDS
from lgbatch.export.models import ensure_models, export
from lgbatch.export.weights.catalog import WEIGHTS
from lgbatch.export.weights.find import find_weights
from lgbatch.export.weights.state import load_state
from lgbatch.kernels import library as kernels
from lgbatch.runtime.models import open_extractor, open_stages
from lgbatch.runtime.registry import PACK, model_path, stage_names
from tests.helpers import upstream
from tests.helpers.extraction import Found, at_whole_pixels

pytestmark = pytest.mark.weights


def photos(folder: Path, *sizes: tuple[int, int]) -> list[NDArray[np.float32]]:
    """The first photo of a folder at several (width, height), as (3, H, W) RGB in 0..1."""
    image = cv2.imread(str(next(iter(sorted(folder.glob("*.jpg"))))))
    resized = [cv2.resize(image, size, interpolation=cv2.INTER_AREA)[..., ::-1] for size in sizes]
    return [np.ascontiguousarray(r.transpose(2, 0, 1), dtype=np.float32) / 255 for r in resized]


def run_disk(models: Path, images: NDArray[np.float32], most: int) -> list[Found]:
    session = ort.InferenceSession(str(model_path(models, "disk", "extractor")), providers=["CPUExecutionProvider"])
    outputs = session.run(None, {"image": images, "max_keypoints": np.array(most)})
    return [(k[:c], s[:c], d[:c]) for k, s, d, c in zip(*outputs, strict=True)]


@pytest.mark.parametrize("size", [(640, 427), (333, 500), (512, 512), (64, 48), (1024, 683)])
def test_disk_agrees_with_kornia(models: Path, gallery: Path, size: tuple[int, int]) -> None:
    (image,) = photos(gallery, size)
    network = upstream.disk(models / "weights")
    with torch.no_grad():
        (expected,) = network(torch.from_numpy(image[None]), n=1024, pad_if_not_divisible=True)
    (found,) = run_disk(models, image[None], 1024)
    keypoints, scores, descriptors = at_whole_pixels(found, expected.keypoints.numpy())
    ours = {tuple(k): i for i, k in enumerate(keypoints.tolist())}
    rows = np.array([(i, ours[tuple(k)]) for i, k in enumerate(expected.keypoints.tolist()) if tuple(k) in ours])
    assert len(rows) >= 0.995 * max(len(keypoints), len(expected.keypoints)) > 0
    cosines = (expected.descriptors.numpy()[rows[:, 0]] * descriptors[rows[:, 1]]).sum(1)
    assert cosines.min() > 1 - 1e-3
    np.testing.assert_allclose(scores[rows[:, 1]], expected.detection_scores.numpy()[rows[:, 0]], atol=0.05)
    assert (np.diff(scores) <= 0).all()


def test_a_batch_gives_the_same_features_as_single_photos(models: Path, gallery: Path) -> None:
    images = np.stack(photos(gallery, (320, 240), (320, 240)))
    images[1] = images[1, :, ::-1]
    images = np.concatenate([images, np.zeros_like(images[:1])])
    batch = run_disk(models, images, 300)
    for image, batched in zip(images, batch, strict=True):
        (alone,) = run_disk(models, image[None], 300)
        assert len(alone[0]) == len(batched[0])
        np.testing.assert_allclose(alone[0], batched[0], atol=1e-3)
        np.testing.assert_allclose(alone[2], batched[2], atol=1e-5)
    assert [len(features[0]) for features in batch[:2]] == [300, 300]
    assert len(batch[2][0]) < 20  # a black photo has keypoints only at its corners


def test_a_lower_limit_keeps_the_best_keypoints(models: Path, gallery: Path) -> None:
    (image,) = photos(gallery, (320, 240))
    ((many, _, _),), ((few, _, _),) = (run_disk(models, image[None], most) for most in (400, 50))
    np.testing.assert_array_equal(few, many[:50])


def test_the_disk_reference_agrees_with_kornia(models: Path, gallery: Path) -> None:
    (image,) = photos(gallery, (333, 250))
    state = load_state(find_weights(WEIGHTS["disk-depth-save.pth"], cache=models / "weights"))
    with torch.no_grad():
        (expected,) = upstream.disk(models / "weights")(torch.from_numpy(image[None]), n=500, pad_if_not_divisible=True)
        keypoints, scores, descriptors = reference.disk(state, torch.from_numpy(image), 500)
    order = expected.detection_scores.argsort(descending=True)
    found = keypoints.numpy(), scores.numpy(), descriptors.numpy()
    published = expected.keypoints[order].numpy()
    np.testing.assert_array_equal(published, at_whole_pixels(found, published)[0])
    np.testing.assert_allclose(expected.detection_scores[order], scores, atol=1e-4)
    np.testing.assert_allclose(expected.descriptors[order], descriptors, atol=1e-5)
    exported = run_disk(models, image[None], 500)[0][0]
    assert len(parity.same_keypoints(found[0], exported)[0]) >= 0.995 * max(len(exported), len(found[0]))


def test_the_lightglue_reference_agrees_with_the_published_network(models: Path) -> None:
    random = np.random.default_rng(1)
    counts = (150, 130)
    keypoints = [torch.from_numpy(random.uniform(0, 600, (n, 2)).astype(np.float32)) for n in counts]
    descriptors = [torch.from_numpy(random.normal(size=(n, 128)).astype(np.float32)) for n in counts]
    descriptors[1][:100] = descriptors[0][:100] + 0.3 * descriptors[1][:100]
    keypoints[1][:100] = keypoints[0][:100] + 5
    descriptors = [d / d.norm(dim=1, keepdim=True) for d in descriptors]
    sizes = torch.tensor([600.0, 400.0]), torch.tensor([500.0, 600.0])
    state = load_state(find_weights(WEIGHTS["disk_lightglue.pth"], cache=models / "weights"))
    network = upstream.lightglue(depth_confidence=-1, width_confidence=-1)
    sides = [
        {"keypoints": k[None], "descriptors": d[None], "image_size": s[None]}
        for k, d, s in zip(keypoints, descriptors, sizes, strict=True)
    ]
    with torch.no_grad():
        expected = network({"image0": sides[0], "image1": sides[1]})
        layers = reference.lightglue(state, (keypoints[0], keypoints[1]), (descriptors[0], descriptors[1]), sizes)
        matches, scores = reference.mutual_matches(reference.assignment(state, *layers[-1], 8), 0.1)
    np.testing.assert_array_equal(matches, expected["matches0"][0])
    assert (matches >= 0).sum() > 50
    np.testing.assert_allclose(scores, expected["matching_scores0"][0] * (matches >= 0), atol=1e-4)


@pytest.mark.parametrize("counts", [((1000, 5), (700, 1000)), ((1, 1), (1, 300)), ((0, 40), (40, 0))])
def test_the_single_graph_ignores_the_content_of_padding(
    models: Path, counts: tuple[tuple[int, int], tuple[int, int]]
) -> None:
    random = np.random.default_rng(2)
    session = ort.InferenceSession(str(model_path(models, "disk", "matcher")), providers=["CPUExecutionProvider"])

    def feed(rows: slice, width: tuple[int, int], padding: float) -> dict[str, NDArray[np.generic]]:
        result: dict[str, NDArray[np.generic]] = {"threshold": np.array(0.1, np.float32)}
        for side in (0, 1):
            lengths = np.array(counts[side])[rows]
            keypoints, descriptors = sides[side]
            for name, values in (("keypoints", keypoints), ("descriptors", descriptors)):
                values = values[rows, : width[side]].copy()
                for row, length in enumerate(lengths):
                    values[row, length:] = padding
                result[f"{name}{side}"] = values
            result |= {f"lengths{side}": lengths, f"size{side}": np.full((len(lengths), 2), 640, np.float32)}
        return result

    base = random.normal(size=(2, 1000, 128)).astype(np.float32)
    sides = []
    for _ in (0, 1):
        descriptors = base + 0.3 * random.normal(size=base.shape).astype(np.float32)
        descriptors /= np.linalg.norm(descriptors, axis=2, keepdims=True)
        sides.append((random.uniform(0, 640, (2, 1000, 2)).astype(np.float32), descriptors))
    longest = max(counts[0]), max(counts[1])
    zeros, noise = (session.run(None, feed(slice(0, 2), longest, padding)) for padding in (0.0, 1e4))
    np.testing.assert_array_equal(zeros[0], noise[0])
    np.testing.assert_array_equal(zeros[1], noise[1])
    for row, (m, n) in enumerate(zip(*counts, strict=True)):
        assert (zeros[0][row, m:] == -1).all() and (zeros[0][row] < max(n, 1)).all()
        if min(m, n) == 0:
            assert (zeros[0][row] == -1).all() and (zeros[1][row] == 0).all()
        else:
            alone = session.run(None, feed(slice(row, row + 1), (m, n), 0.0))
            np.testing.assert_array_equal(alone[0][0], zeros[0][row, :m])
            np.testing.assert_allclose(alone[1][0], zeros[1][row, :m], atol=1e-5)


def test_models_record_their_weights_parity_and_settings(models: Path) -> None:
    for precision in ("fp32", "int8"):
        if precision == "int8" and kernels.int8_unavailable_reason():
            continue
        settings = Settings(extractor="disk", device="cpu", precision=precision)
        stages = open_stages(models, settings).models
        assert list(stages) == [*stage_names(9), *(PACK if precision == "fp32" else [])]
        for model in (extractor := open_extractor(models, settings), *stages.values()):
            metadata = model.session.metadata
            assert model.weights in {weights.sha256 for weights in WEIGHTS.values()}
            assert min(json.loads(metadata["lgbatch.parity"]).values()) >= 0
            assert json.loads(metadata["lgbatch.settings"]) == {
                "precision": "fp32" if model is extractor else precision
            }


def test_a_wrong_or_damaged_model_is_reported_by_name_in_one_line(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(kernels.ISA_VARIABLE, kernels.NO_KERNELS)
    path = model_path(tmp_path, "disk", "extractor")

    def refusal() -> str:
        with pytest.raises(errors.ModelError) as raised:
            open_extractor(tmp_path, Settings(extractor="disk", device="cpu", threads=1))
        assert "\n" not in str(raised.value)
        return str(raised.value)

    assert "run `lgbatch export disk`" in refusal()
    whole = model_path(models, "disk", "extractor").read_bytes()
    for damaged in (b"", b"no model", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        assert "cannot be opened" in refusal()
    path.write_bytes((model_path(models, "disk", "stages") / "head0.onnx").read_bytes())
    assert "is the head of disk, not the extractor of disk" in refusal()
    model = onnx.load(model_path(models, "disk", "extractor"))
    del model.metadata_props[:]
    onnx.save(model, path)
    assert "was not made by lgbatch" in refusal()


@pytest.mark.skipif(kernels.int8_unavailable_reason() is not None, reason=str(kernels.int8_unavailable_reason()))
def test_a_damaged_layer_is_reported_by_name_in_one_line(models: Path, tmp_path: Path) -> None:
    settings = Settings(extractor="disk", device="cpu", precision="int8")
    folder = model_path(tmp_path, "disk", "stages-int8")
    shutil.copytree(model_path(models, "disk", "stages-int8"), folder)
    whole = (folder / "layer1.npz").read_bytes()
    with np.load(folder / "layer1.npz") as arrays:
        shorter = {name: arrays[name][:-4] if arrays[name].ndim else arrays[name] for name in arrays.files}
    np.savez(tmp_path / "shorter.npz", **shorter)
    broken = bytearray(whole)
    broken[len(broken) // 2] ^= 1
    for damaged in (b"", b"no model", whole[:100_000], bytes(broken), (tmp_path / "shorter.npz").read_bytes()):
        (folder / "layer4.npz").write_bytes(damaged)
        with pytest.raises(errors.ModelError, match=r"layer4.npz cannot be opened .*: delete it and run") as raised:
            open_stages(tmp_path, settings)
        assert "\n" not in str(raised.value)


def test_a_model_with_changed_weights_is_discarded(models: Path, tmp_path: Path) -> None:
    from lgbatch.export import parity

    state = load_state(find_weights(WEIGHTS["disk_lightglue.pth"], cache=models / "weights"))
    model = onnx.load(model_path(models, "disk", "matcher"))
    for weight in model.graph.initializer:
        if weight.name.endswith("project.weight"):
            values = onnx.numpy_helper.to_array(weight) * np.float32(1.05)
            weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, tmp_path / "changed.onnx")
    with pytest.raises(errors.ModelError, match="does not agree with the PyTorch reference"):
        parity.matcher(tmp_path / "changed.onnx", state)


def test_existing_models_are_not_exported_again(models: Path) -> None:
    ensure_models(models, "disk", KINDS, log=lambda line: pytest.fail(line))


def test_an_unwritable_model_folder_is_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(errors.ModelError, match="choose another with --models"):
        export(tmp_path / "file" / "models", "disk")
