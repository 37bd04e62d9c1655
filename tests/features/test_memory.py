"""Photos that are too large for the memory, and devices that fail during extraction."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lgbatch.config import Settings
from lgbatch.errors import ItemError, LgbatchError
from lgbatch.export.extractors import EXTRACTORS
from lgbatch.features import extract, memory, network
from lgbatch.features.memory import MemoryBudget
from lgbatch.features.network import Extractor
from lgbatch.features.sift import SiftExtractor
from lgbatch.runtime.registry import KERNEL_EXTRACTORS
from lgbatch.types import Failure, Features, Photo


def photo(width: int, height: int) -> Photo:
    return Photo(f"{width}x{height}", np.zeros((height, width, 3), np.uint8), (width, height))


class StandInModel:
    """A model on a device that finds one keypoint per photo, until it fails for good after `lasts` runs."""

    weights = ""
    session = SimpleNamespace(widths=[2, None, 8], inputs=["image", "max_keypoints"])

    def __init__(self, device: str = "cpu", lasts: int = 10**9) -> None:
        self.device, self.lasts = device, lasts
        self.shapes: list[tuple[int, ...]] = []

    def run(self, feed: Mapping[str, Any]) -> list[Any]:
        self.shapes.append(feed["image"].shape)
        if len(self.shapes) > self.lasts:
            raise RuntimeError("CUDA failure 700: an illegal memory access")
        count = len(feed["image"])
        points = np.ones((count, 1, 2), np.float32)
        return [points, points[..., 0], np.ones((count, 1, 8), np.float32), np.ones(count, np.int64)]


def open_extractor(monkeypatch: pytest.MonkeyPatch, model: StandInModel) -> Extractor:
    monkeypatch.setattr(network, "open_extractor", lambda *_: model)
    return Extractor(None, Settings(extractor="disk"))  # type: ignore[arg-type]


@pytest.mark.parametrize("extractor", [*EXTRACTORS, "sift"])
def test_the_memory_of_each_extractor_is_known(monkeypatch: pytest.MonkeyPatch, extractor: str) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 10**9)
    check = MemoryBudget(extractor)
    check.check(640, 480)
    with pytest.raises(ItemError, match=f"{extractor} needs about .* for 8000 x 6000 pixels"):
        check.check(8000, 6000)


@pytest.mark.parametrize("family", KERNEL_EXTRACTORS)
def test_the_kernels_need_less_memory(monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 4 * 10**9)
    with pytest.raises(ItemError):
        MemoryBudget(family).check(6000, 4000)
    MemoryBudget(family, in_kernels=True).check(6000, 4000)


def test_a_photo_that_does_not_fit_is_told_the_size_that_would(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 20 * 10**9)
    check = MemoryBudget("disk")
    with pytest.raises(ItemError) as raised:
        check.check(8000, 6000)
    text = str(raised.value)
    assert text.startswith("disk needs about 67.2 GB of memory for 8000 x 6000 pixels, and 18.0 GB are available: use")
    side = int(text.split("--resize ")[1].split()[0])
    check.check(side, side * 3 // 4)
    with pytest.raises(ItemError):
        check.check(side + 32, (side + 32) * 3 // 4)


class Machine:
    """A machine with some free memory, of which this process takes more and more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, free: int) -> None:
        self.free, self.taken = free, 10**8
        monkeypatch.setattr(memory, "available_memory", lambda: self.free)
        monkeypatch.setattr(memory, "private_memory", lambda: self.taken)

    def take(self, size: int) -> None:
        self.free, self.taken = self.free - size, self.taken + size


def test_memory_that_is_kept_serves_the_next_photo_of_that_size(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, 2 * 10**9)
    budget = MemoryBudget("disk")
    with budget.reserve(1200, 1000):
        machine.take(168 * 10**7)
    budget.check(1200, 1000)
    with pytest.raises(ItemError):
        budget.check(2400, 2000)


def test_memory_that_others_in_the_process_take_is_not_for_photos(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, 2 * 10**9)
    budget = MemoryBudget("disk")
    with budget.reserve(640, 480):
        machine.take(168 * 10**7)
    with pytest.raises(ItemError):
        budget.check(1200, 1000)


def test_whether_a_photo_fits_does_not_depend_on_those_in_extraction(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, 4 * 10**9)
    budget = MemoryBudget("disk")
    sizes = [(640, 480), (1600, 1200), (2000, 1500), (6000, 4000)]
    alone = [budget.tile_side(*size) for size in sizes]
    assert alone == [0, 0, 1024, 1024]
    with budget.reserve(1000, 1000), budget.reserve(900, 1000):
        for _ in range(3):
            machine.take(88 * 10**7)
            assert [budget.tile_side(*size) for size in sizes] == alone


def test_memory_that_the_system_does_not_report_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: None)
    budget = MemoryBudget("disk")
    budget.check(100_000, 100_000)
    with budget.reserve(100_000, 100_000):
        pass
    assert budget.at_once(1024 * 768) == 3


def test_a_photo_that_does_not_fit_even_in_tiles_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 10**8)
    model = StandInModel()
    extractor = open_extractor(monkeypatch, model)
    outcomes = dict(
        outcome for size in (64, 2000, 32) for outcome in extract._extract_or_fail(extractor, [photo(size, size)])
    )
    failure = outcomes.pop("2000x2000")
    assert isinstance(failure, Failure) and "use --resize" in failure.reason
    assert len(outcomes) == 2 and all(isinstance(outcome, Features) for outcome in outcomes.values())
    assert model.shapes == [(1, 3, 64, 64), (1, 3, 32, 32)]


def test_the_memory_of_the_host_does_not_limit_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 0)
    assert len(open_extractor(monkeypatch, StandInModel("cuda")).extract([photo(64, 64)] * 2)) == 2


def test_sift_is_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 10**6)
    with pytest.raises(ItemError, match="sift needs about"):
        SiftExtractor(Settings(extractor="sift")).extract([photo(640, 480)])


def test_a_device_that_does_not_recover_ends_extraction(monkeypatch: pytest.MonkeyPatch) -> None:
    extractor = open_extractor(monkeypatch, StandInModel("cuda", lasts=1))
    photos = [photo(64, 64)] * 2
    assert len(list(extract._extract_or_fail(extractor, photos))) == 2
    with pytest.raises(LgbatchError, match="does not recover"):
        list(extract._extract_or_fail(extractor, photos))
