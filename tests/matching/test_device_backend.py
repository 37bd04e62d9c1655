"""DeviceBackend, with the CPU as the device, against HostBackend; batch and cache sizes by memory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from lgbatch.config import Settings
from lgbatch.matching.backend import POINT_TENSORS, HostBackend, Points
from lgbatch.matching.capacity import (
    CPU_CACHE_BYTES,
    GPU_THREADS,
    REFILL,
    batch_tokens,
    cached_images,
    group_tokens,
)
from lgbatch.matching.device_backend import DEVICE_OUTPUTS, DeviceBackend, DeviceView
from lgbatch.matching.lightglue import Matcher
from lgbatch.runtime.models import Stages
from lgbatch.runtime.registry import INTERFACE, PACK, Shape, model_path
from lgbatch.runtime.session import OnnxSession
from lgbatch.types import Features, FloatArray, Matches
from tests.helpers.extraction import cut

FP32 = Settings(extractor="disk", device="cpu", precision="fp32")
COUNTS = [(500, 450), (1, 1), (5, 300), (300, 1), (200, 210), (210, 200), (64, 300), (205, 205), (200, 205)]


def device_matcher(models: Path, settings: Settings) -> Matcher:
    matcher = Matcher(models, settings)
    matcher._backend = DeviceBackend(matcher.stages)
    return matcher


def encoded_pairs(matcher: Matcher, features: Sequence[Features]) -> list[tuple[Points, Points]]:
    return [
        (matcher.encode(cut(features[i], m)), matcher.encode(cut(features[i + 1], n)))
        for i, (m, n) in enumerate(COUNTS)
    ]


def assert_equal(matches: Matches, expected: Matches) -> None:
    np.testing.assert_array_equal(matches.indices, expected.indices)
    np.testing.assert_array_equal(matches.scores, expected.scores)


@pytest.mark.weights
@pytest.mark.parametrize("tokens", [1, 900, 10_000])
@pytest.mark.parametrize(
    "changes",
    [{}, {"depth_confidence": -1.0, "width_confidence": -1.0}, {"depth_confidence": -1.0}, {"give_up": 15}],
    ids=["adaptive", "fixed", "no early exit", "give up"],
)
def test_matches_equal_those_of_the_host_backend(
    models: Path, demo_features: Sequence[Features], changes: Mapping[str, Any], tokens: int
) -> None:
    settings = replace(FP32, **changes)
    host, device = Matcher(models, settings), device_matcher(models, settings)
    host._backend.padding = device._backend.padding  # in the same batches the results are equal to the last bit
    expected = host.match_and_stop(encoded_pairs(host, demo_features), tokens)
    results = device.match_and_stop(encoded_pairs(device, demo_features), tokens)
    for (matches, stop), (expected_matches, expected_stop) in zip(results, expected, strict=True):
        assert stop == expected_stop
        assert_equal(matches, expected_matches)
    assert sum(len(matches.indices) for matches, _ in results) > 300
    assert device.stages.models.keys() >= PACK.keys()


@pytest.mark.weights
def test_the_trace_of_a_pair_equals_that_of_the_host_backend(models: Path, demo_features: Sequence[Features]) -> None:
    matchers = Matcher(models, FP32), device_matcher(models, FP32)
    pair = cut(demo_features[0], 700), cut(demo_features[4], 600)
    expected, trace = (
        matcher.match_with_trace(*(matcher.encode(features) for features in pair)) for matcher in matchers
    )
    assert (trace.stop, trace.depth) == (expected.stop, expected.depth)
    assert_equal(trace.matches, expected.matches)
    np.testing.assert_array_equal(trace.layers0, expected.layers0)
    np.testing.assert_array_equal(trace.layers1, expected.layers1)
    assert trace.layers0.min() < trace.stop  # some points were pruned


@pytest.mark.weights
def test_only_decisions_and_matches_are_copied_to_the_host(models: Path, demo_features: Sequence[Features]) -> None:
    device, value_types = device_matcher(models, FP32), set()
    run: Callable[..., Sequence[Any]] = device._backend.run

    def spy(stage: str, feed: Mapping[str, Any]) -> Sequence[Any]:
        outputs = run(stage, feed)
        names = device.stages.models[stage].session.outputs
        for name, value in zip(names, outputs, strict=True):
            value_types.add((name, type(value)))
        if stage != "stem":
            inputs = {name.rstrip("01"): value for name, value in feed.items()}
            value_types.update((name, type(value)) for name, value in inputs.items() if name in POINT_TENSORS)
        return outputs

    device._backend.run = spy  # type: ignore[method-assign]
    device.match(encoded_pairs(device, demo_features), 10_000)
    on_device = {name for name, value_type in value_types if value_type is ort.OrtValue}
    on_host = {name for name, value_type in value_types if value_type is np.ndarray}
    assert on_device == {*DEVICE_OUTPUTS}
    assert on_host == {*INTERFACE["layer"][1], *INTERFACE["head"][1]} - on_device


@pytest.mark.weights
def test_an_unchanged_batch_is_not_packed_again(models: Path, demo_features: Sequence[Features]) -> None:
    device = device_matcher(models, replace(FP32, depth_confidence=-1, width_confidence=-1))
    session, packed = device.stages.models["pack"].session, []
    run_into: Callable[..., None] = session.run_into  # type: ignore[attr-defined]
    session.run_into = lambda feed, outputs, *at: packed.append({*outputs}) or run_into(feed, outputs, *at)  # type: ignore[attr-defined]
    images = [device.encode(cut(features, 200)) for features in demo_features[:3]]
    device.match([(images[0], images[1]), (images[0], images[2])], 1000)
    # Encoded images are batches of one: one run for the image that both pairs share, two for the others.
    assert packed == [{*INTERFACE["pack"][1]}] * 3
    packed.clear()
    images += [device.encode(cut(features, 200)) for features in demo_features[3:5]]
    pairs = [(first, second) for i, first in enumerate(images) for second in images[:i]]
    device.match(pairs, 10 * 400)
    # Five images in ten pairs: one run for each to join them, and one for each side of the batch.
    assert packed == [{*INTERFACE["pack"][1]}] * (5 + 2)
    packed.clear()
    device.match([(images[0], images[1])], 1000)
    assert packed == []


@pytest.mark.weights
def test_points_of_several_batches_are_packed_into_one(models: Path) -> None:
    backend, random = DeviceBackend(Matcher(models, FP32).stages), np.random.default_rng(0)

    def batch(lengths: Sequence[int], padded_length: int) -> list[tuple[DeviceView, list[FloatArray]]]:
        """Views of a random batch, each with the arrays of its points."""
        shapes = ((len(lengths), padded_length, width) for width in (256, 32, 32))
        arrays = [random.random(shape, dtype=np.float32) for shape in shapes]
        views = backend.split(lengths, *map(ort.OrtValue.ortvalue_from_numpy, arrays))
        return [(view, [array[row, : len(view)] for array in arrays]) for row, view in enumerate(views)]

    first, second = batch([3, 7, 7], 7), batch([5, 1], 6)
    images = [first[2], second[1], second[0], first[0]]
    mask = random.random(7) < 0.5
    images.append((first[1][0].keep(mask), [array[mask] for array in first[1][1]]))
    for names in POINT_TENSORS, ("x",):
        packed = backend.pad([view for view, _ in images], names)
        assert list(packed) == list(names)
        for name, tensor in packed.items():
            values = tensor.numpy()
            assert values.shape[:2] == (5, 7) and np.isfinite(values).all()
            for row, (view, expected) in enumerate(images):
                np.testing.assert_array_equal(values[row, : len(view)], expected[POINT_TENSORS.index(name)])
    unchanged = backend.pad([view for view, _ in first], POINT_TENSORS)
    assert unchanged["x"] is first[0][0].batch.x


@pytest.mark.weights
def test_fp16_stages_find_98_percent_of_the_matches_of_fp32(models: Path, demo_features: Sequence[Features]) -> None:
    """On the CPU, which runs fp16 stages too; only `--precision fp16` requires a GPU."""
    fp32 = Matcher(models, FP32)
    folder, fp16 = model_path(models, "disk", "stages-fp16"), Matcher(models, FP32)
    sessions = {
        stage: replace(model, session=OnnxSession(folder / model.path.name, "cpu", threads=1, shared_arena=True))
        for stage, model in fp16.stages.models.items()
    }
    fp16._backend = HostBackend(Stages(sessions, "fp16", Shape()))
    common = total = 0
    for first, second, m, n in [(0, 1, 1000, 1000), (0, 3, 700, 512), (2, 6, 600, 900), (0, 8, 640, 64), (1, 2, 5, 1)]:
        pair = cut(demo_features[first], m), cut(demo_features[second], n)
        fp32_matches, fp16_matches = (
            {
                (int(a), int(b))
                for a, b in matcher.match([(matcher.encode(pair[0]), matcher.encode(pair[1]))], 4096)[0].indices
            }
            for matcher in (fp32, fp16)
        )
        common += len(fp32_matches & fp16_matches)
        total += len(fp32_matches)
    assert total > 500
    assert common >= 0.98 * total


def test_stages_count_as_on_the_cpu_if_one_of_them_is() -> None:
    def device(**models: str) -> str:
        opened: Any = {stage: SimpleNamespace(device=device) for stage, device in models.items()}
        return Stages(opened, "fp32", Shape()).device

    assert device(stem="cuda", layer0="cuda") == "cuda"
    assert device(stem="cuda", layer0="cpu") == device(stem="cpu", layer0="cuda") == "cpu"


def test_batch_and_cache_sizes_follow_the_free_memory_of_a_gpu() -> None:
    def stages(gigabytes: float, precision: str = "fp16", device: str = "cuda") -> Stages:
        stem: Any = SimpleNamespace(device=device)
        return Stages({"stem": stem}, precision, Shape(), int(gigabytes * 1e9))

    assert batch_tokens(stages(0, "fp32", "cpu"), 2048) == batch_tokens(stages(0.01), 2048) == 4096
    assert batch_tokens(stages(0, "int8", "cpu"), 2048) == 1
    assert batch_tokens(stages(6), 2048) == 3_000_000_000 // (32 * 256 + 4 * 4 * 2048) == 73242
    assert batch_tokens(stages(6), 8192) < batch_tokens(stages(6), 2048) < batch_tokens(stages(80), 2048) == 131072
    assert (
        cached_images(stages(0, "fp32", "cpu"), 2048)
        == CPU_CACHE_BYTES // (2048 * 1280)
        < cached_images(stages(8, "fp32"), 2048)
        == 762
    )
    assert cached_images(stages(8), 2048) == 1525  # points in half precision
    assert group_tokens(stages(0, "fp32", "cpu"), 2048) == 4096  # on a CPU, a batch
    assert group_tokens(stages(80), 2048) == REFILL * batch_tokens(stages(80), 2048)
    for gigabytes in (0.1, 1, 4, 8):  # an eighth of the memory for the points of all threads, or a single batch
        tokens, points = batch_tokens(stages(gigabytes), 512), gigabytes * 1e9 / 8 / (3 * 640 * GPU_THREADS)
        assert tokens <= group_tokens(stages(gigabytes), 512) <= max(tokens, points)


@pytest.mark.weights
def test_shrink_returns_memory_to_the_system(models: Path, demo_features: Sequence[Features]) -> None:
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("no /proc")

    def megabytes() -> float:
        return int(statm.read_text().split()[1]) * 4096 / 1e6

    matcher = Matcher(models, FP32)
    images = [matcher.encode(cut(features, 1000)) for features in demo_features[:9]]
    matcher.match([(images[0], image) for image in images[1:]], 16_000)
    before = megabytes()
    matcher.stages.shrink()
    assert megabytes() < before - 100
