"""The engine whose points stay on a device, with the CPU for the device, against the one of arrays."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from lgbatch.config import Settings
from lgbatch.matching.backend import PARTS, HostBackend, Points
from lgbatch.matching.capacity import images, tokens
from lgbatch.matching.device_backend import STAY, DeviceBackend, DeviceView
from lgbatch.matching.lightglue import Matcher
from lgbatch.runtime.models import Stages
from lgbatch.runtime.registry import INTERFACE, PACK, Shape, model_path
from lgbatch.runtime.session import OnnxSession
from lgbatch.types import Features, FloatArray, Matches
from tests.helpers.extraction import cut

EXACT = Settings(device="cpu", precision="fp32")
COUNTS = [(500, 450), (1, 1), (5, 300), (300, 1), (200, 210), (210, 200), (64, 300), (205, 205), (200, 205)]


def on_device(models: Path, settings: Settings) -> Matcher:
    matcher = Matcher(models, settings)
    matcher._place = DeviceBackend(matcher.stages)
    return matcher


def stems(matcher: Matcher, features: Sequence[Features]) -> list[tuple[Points, Points]]:
    return [
        (matcher.encode(cut(features[i], m)), matcher.encode(cut(features[i + 1], n)))
        for i, (m, n) in enumerate(COUNTS)
    ]


def assert_equal(found: Matches, expected: Matches) -> None:
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.scores, expected.scores)


@pytest.mark.weights
@pytest.mark.parametrize("most", [1, 900, 10_000])
@pytest.mark.parametrize(
    "changes",
    [{}, {"depth_confidence": -1.0, "width_confidence": -1.0}, {"depth_confidence": -1.0}, {"give_up": 15}],
    ids=["adaptive", "fixed", "never done early", "giving up"],
)
def test_matches_are_those_of_arrays(
    models: Path, demo_features: Sequence[Features], changes: Mapping[str, Any], most: int
) -> None:
    settings = replace(EXACT, **changes)
    host, device = Matcher(models, settings), on_device(models, settings)
    usual = host.match_and_stop(stems(host, demo_features), most)
    found = device.match_and_stop(stems(device, demo_features), most)
    for (matches, stop), (expected, depth) in zip(found, usual, strict=True):
        assert stop == depth
        assert_equal(matches, expected)
    assert sum(len(matches.indices) for matches, _ in found) > 300
    assert device.stages.models.keys() >= PACK.keys()


@pytest.mark.weights
def test_a_pair_is_followed_as_with_arrays(models: Path, demo_features: Sequence[Features]) -> None:
    engines = Matcher(models, EXACT), on_device(models, EXACT)
    pair = cut(demo_features[0], 700), cut(demo_features[4], 600)
    usual, found = (engine.follow(*(engine.encode(features) for features in pair)) for engine in engines)
    assert (found.stop, found.depth) == (usual.stop, usual.depth)
    assert_equal(found.matches, usual.matches)
    np.testing.assert_array_equal(found.layers0, usual.layers0)
    np.testing.assert_array_equal(found.layers1, usual.layers1)
    assert found.layers0.min() < found.stop  # something was dropped on the way


@pytest.mark.weights
def test_only_decisions_and_matches_come_to_the_host(models: Path, demo_features: Sequence[Features]) -> None:
    device, made = on_device(models, EXACT), set()
    run: Callable[..., Sequence[Any]] = device._place.run

    def spy(stage: str, feed: Mapping[str, Any]) -> Sequence[Any]:
        outputs = run(stage, feed)
        names = device.stages.models[stage].session.outputs
        for name, value in zip(names, outputs, strict=True):
            made.add((name, type(value)))
        if stage != "stem":
            made.update((name.rstrip("01"), type(value)) for name, value in feed.items() if name.rstrip("01") in PARTS)
        return outputs

    device._place.run = spy  # type: ignore[method-assign]
    device.match(stems(device, demo_features), 10_000)
    left = {name for name, kind in made if kind is ort.OrtValue}
    assert left == {*STAY}
    assert {name for name, kind in made if kind is np.ndarray} == {*INTERFACE["layer"][1], *INTERFACE["head"][1]} - left


@pytest.mark.weights
def test_an_unchanged_batch_is_not_packed(models: Path, demo_features: Sequence[Features]) -> None:
    device = on_device(models, replace(EXACT, depth_confidence=-1, width_confidence=-1))
    session, packed = device.stages.models["pack"].session, []
    run_into: Callable[..., None] = session.run_into  # type: ignore[attr-defined]
    session.run_into = lambda feed, outputs, *at: packed.append({*outputs}) or run_into(feed, outputs, *at)  # type: ignore[attr-defined]
    sides = [device.encode(cut(features, 200)) for features in demo_features[:3]]
    device.match([(sides[0], sides[1]), (sides[0], sides[2])], 1000)
    # Before the first layer, of whole stems: one run for the image that both pairs have, two for the others.
    assert packed == [{*INTERFACE["pack"][1]}] * 3
    packed.clear()
    device.match([(sides[0], sides[1])], 1000)
    assert packed == []


@pytest.mark.weights
def test_points_are_gathered_from_several_blocks(models: Path) -> None:
    place, random = DeviceBackend(Matcher(models, EXACT).stages), np.random.default_rng(0)

    def block(lengths: Sequence[int], most: int) -> list[tuple[DeviceView, list[FloatArray]]]:
        shapes = ((len(lengths), most, width) for width in (256, 32, 32))
        arrays = [random.random(shape, dtype=np.float32) for shape in shapes]
        items = place.items(lengths, *map(ort.OrtValue.ortvalue_from_numpy, arrays))
        return [(item, [part[row, : len(item)] for part in arrays]) for row, item in enumerate(items)]

    first, second = block([3, 7, 7], 7), block([5, 1], 6)
    items = [first[2], second[1], second[0], first[0]]
    mask = random.random(7) < 0.5
    items.append((first[1][0].keep(mask), [part[mask] for part in first[1][1]]))
    for parts in PARTS, ("x",):
        made = place.padded([item for item, _ in items], parts)
        assert list(made) == list(parts)
        for part, tensor in made.items():
            values = tensor.numpy()
            assert values.shape[:2] == (5, 7) and np.isfinite(values).all()
            for row, (item, expected) in enumerate(items):
                np.testing.assert_array_equal(values[row, : len(item)], expected[PARTS.index(part)])
    whole = place.padded([item for item, _ in first], PARTS)
    assert whole["x"] is first[0][0].block.x


@pytest.mark.weights
def test_fp16_finds_nearly_all_of_the_matches(models: Path, demo_features: Sequence[Features]) -> None:
    """Its stages, on the CPU: it is `--precision fp16` alone that asks for a GPU."""
    exact = Matcher(models, EXACT)
    folder, half = model_path(models, "disk", "stages-fp16"), Matcher(models, EXACT)
    sessions = {
        stage: replace(model, session=OnnxSession(folder / model.path.name, "cpu", threads=1, shared=True))
        for stage, model in half.stages.models.items()
    }
    half._place = HostBackend(Stages(sessions, "fp16", Shape()))
    same = total = 0
    for first, second, m, n in [(0, 1, 1000, 1000), (0, 3, 700, 512), (2, 6, 600, 900), (0, 8, 640, 64), (1, 2, 5, 1)]:
        pair = cut(demo_features[first], m), cut(demo_features[second], n)
        found = [
            {
                (int(a), int(b))
                for a, b in engine.match([(engine.encode(pair[0]), engine.encode(pair[1]))], 4096)[0].indices
            }
            for engine in (exact, half)
        ]
        same += len(found[0] & found[1])
        total += len(found[0])
    assert total > 500
    assert same >= 0.98 * total


def test_stages_of_which_one_is_on_the_cpu_meet_on_the_host() -> None:
    def device(**models: str) -> str:
        opened: Any = {stage: SimpleNamespace(device=device) for stage, device in models.items()}
        return Stages(opened, "fp32", Shape()).device

    assert device(stem="cuda", layer0="cuda") == "cuda"
    assert device(stem="cuda", layer0="cpu") == device(stem="cpu", layer0="cuda") == "cpu"


def test_batches_and_what_is_kept_fit_the_memory_of_a_gpu() -> None:
    def stages(gigabytes: float, precision: str = "fp16", device: str = "cuda") -> Stages:
        stem: Any = SimpleNamespace(device=device)
        return Stages({"stem": stem}, precision, Shape(), int(gigabytes * 1e9))

    assert tokens(stages(0, "fp32", "cpu"), 2048) == tokens(stages(0.01), 2048) == 4096
    assert tokens(stages(0, "int8", "cpu"), 2048) == 1
    assert tokens(stages(6), 2048) == 3_000_000_000 // (32 * 256 + 4 * 4 * 2048) == 73242
    assert tokens(stages(6), 8192) < tokens(stages(6), 2048) < tokens(stages(80), 2048) == 131072
    assert images(stages(0, "fp32", "cpu"), 2048) == (1 << 29) // (2048 * 1280) < images(stages(8), 2048) == 762


@pytest.mark.weights
def test_memory_is_given_back(models: Path, demo_features: Sequence[Features]) -> None:
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("the system does not tell")

    def megabytes() -> float:
        return int(statm.read_text().split()[1]) * 4096 / 1e6

    matcher = Matcher(models, EXACT)
    sides = [matcher.encode(cut(features, 1000)) for features in demo_features[:9]]
    matcher.match([(sides[0], side) for side in sides[1:]], 16_000)
    before = megabytes()
    matcher.stages.shrink()
    assert megabytes() < before - 100
