"""Photos that a CPU extracts at once: the same features in the same order, within the memory."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import cv2
import numpy as np
import pytest

from lgbatch.config import Settings
from lgbatch.errors import LgbatchError
from lgbatch.features import extract as extract_module
from lgbatch.features import memory
from lgbatch.features.extract import extract
from lgbatch.features.memory import MemoryBudget, photos_at_once
from lgbatch.features.network import Extractor
from lgbatch.kernels import library
from lgbatch.photos.crawl import crawl
from lgbatch.runtime.models import open_extractor
from lgbatch.runtime.session import OnnxSession
from lgbatch.storage.features import FeatureStore
from lgbatch.types import Features, ImageRef, Photo
from tests.helpers.stand_in import _Extractor


@pytest.fixture(autouse=True)
def no_thread_leaks() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPoolExecutor")]


def write_photos(folder: Path, count: int, size: tuple[int, int] = (160, 120)) -> Path:
    folder.mkdir()
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (30, 40, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC))
    return folder


def stored(path: Path) -> list[tuple[str, list[bytes]]]:
    """The names in the store, and the bytes of their arrays."""
    with FeatureStore(path) as store:
        features = [(name, store.read(name)) for name in store.names()]
    return [(name, [f.keypoints.tobytes(), f.scores.tobytes(), f.descriptors.tobytes()]) for name, f in features]


def assert_equal_features(images: Path, models: Path, **settings: str | int) -> None:
    """Extract with several numbers of threads, and compare the stores."""
    runs = []
    for threads in (1, 2, 5):
        path = images.parent / str(threads) / "features.h5"
        options = Settings.load(rotation="exif", device="cpu", threads=threads, max_keypoints=100, **settings)
        assert photos_at_once(crawl(images).images, options) == threads
        extract(images, path, models=models, settings=options)
        runs.append(stored(path))
    assert runs[0] == runs[1] == runs[2]
    assert len(runs[0]) == 9 and all(arrays[0] for _, arrays in runs[0])


def test_sift_does_not_depend_on_the_number_of_photos_at_once(tmp_path: Path) -> None:
    assert_equal_features(write_photos(tmp_path / "images", 9), tmp_path, extractor="sift")


@pytest.mark.weights
@pytest.mark.parametrize("extractor", ["aliked-n16rot", "disk"])
def test_networks_do_not_depend_on_the_number_of_photos_at_once(models: Path, tmp_path: Path, extractor: str) -> None:
    assert_equal_features(write_photos(tmp_path / "images", 9), models, extractor=extractor)


@pytest.mark.weights
def test_threads_that_call_are_among_those_of_the_settings(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "chosen_isa", lambda: None)

    def threads_of(at_once: int) -> int:
        session = Extractor(models, Settings(device="cpu", threads=4), at_once).model.session
        assert isinstance(session, OnnxSession)
        threads: int = session._session.get_session_options().intra_op_num_threads
        return threads

    assert [threads_of(at_once) for at_once in (1, 3, 4)] == [4, 2, 1]
    session = open_extractor(models, Settings(device="cpu", threads=4)).session
    assert isinstance(session, OnnxSession) and session._session.get_session_options().intra_op_num_threads == 4


class Calls:
    """What the stand-in extractor does with a photo, and how many photos it works on at once."""

    def __init__(self, work: Callable[[str], object] = lambda _: None) -> None:
        self.work, self.lock, self.running, self.most = work, threading.Lock(), 0, 0
        self.names: list[str] = []

    def open(self, models: Path, settings: Settings, at_once: int) -> Extractor:
        calls = self

        class Calling(_Extractor):
            def extract(self, photos: Sequence[Photo]) -> list[Features]:
                with calls.lock:
                    calls.running += 1
                    calls.most = max(calls.most, calls.running)
                    calls.names += [photo.name for photo in photos]
                try:
                    calls.work(photos[0].name)
                    return super().extract(photos)
                finally:
                    with calls.lock:
                        calls.running -= 1

        return Calling(models, settings, at_once)  # type: ignore[return-value]


def run(images: Path, calls: Calls, threads: int) -> list[str]:
    """Extract with the stand-in. Returns the names of the photos in the order in which their features were written."""
    names: list[str] = []
    write = FeatureStore.write

    def recording_write(store: FeatureStore, name: str, *rest: object) -> None:
        names.append(name)
        write(store, name, *rest)  # type: ignore[arg-type]

    settings = Settings.load(rotation="exif", threads=threads)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureStore, "write", recording_write)
        store = images.parent / "features.h5"
        extract(images, store, models=images.parent, settings=settings, open_extractor=calls.open)
    return names


def test_as_many_photos_as_threads_are_extracted_at_once(tmp_path: Path) -> None:
    meeting = threading.Barrier(3, timeout=10)
    calls = Calls(lambda _: meeting.wait())
    assert len(run(write_photos(tmp_path / "images", 6), calls, 3)) == 6
    assert calls.most == 3


def test_one_thread_extracts_one_photo_at_a_time(tmp_path: Path) -> None:
    calls = Calls(lambda _: time.sleep(0.01))
    run(write_photos(tmp_path / "images", 5), calls, 1)
    assert calls.most == 1


def test_features_are_written_in_the_order_of_the_photos_and_one_fails_alone(tmp_path: Path) -> None:
    images = write_photos(tmp_path / "images", 8)
    (images / "3.png").write_text("no photo")

    def work(name: str) -> None:
        time.sleep(0.1 if name in ("0.png", "4.png") else 0)
        if name == "5.png":
            raise RuntimeError("the model failed")

    assert run(images, Calls(work), 3) == [f"{number}.png" for number in (0, 1, 2, 4, 6, 7)]


def test_few_photos_are_decoded_before_their_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = write_photos(tmp_path / "images", 30, (64, 48))
    decoded: list[str] = []
    decode, blocked = extract_module.decode, threading.Event()

    def recording_decode(ref: ImageRef, *rest: float) -> Photo:
        decoded.append(ref.name)
        return decode(ref, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(extract_module, "decode", recording_decode)
    timer = threading.Timer(0.5, blocked.set)
    seen: list[int] = []

    def work(_: str) -> None:
        blocked.wait(10)
        seen.append(len(decoded))

    timer.start()
    run(images, Calls(work), 2)
    timer.join()
    assert min(seen) <= 2 * 2 + (2 + 2)  # in extraction or waiting for it, and decoded ahead
    assert len(seen) == len(decoded) == 30


def test_an_error_of_the_device_ends_the_run(tmp_path: Path) -> None:
    images = write_photos(tmp_path / "images", 20, (64, 48))

    def work(name: str) -> None:
        if name == "12.png":
            raise LgbatchError("the device does not recover")

    calls = Calls(work)
    with pytest.raises(LgbatchError, match="does not recover"):
        run(images, calls, 3)
    assert len(calls.names) < 20


def budget(monkeypatch: pytest.MonkeyPatch, available: int | None) -> MemoryBudget:
    monkeypatch.setattr(memory, "available_memory", lambda: available)
    monkeypatch.setattr(memory, "private_memory", lambda: 0)
    monkeypatch.setenv(library.ISA_VARIABLE, library.NO_KERNELS)
    return MemoryBudget("disk")  # 1400 bytes a pixel


def enter(reservation: AbstractContextManager[None], order: list[str], name: str, leave: threading.Event) -> None:
    with reservation:
        order.append(name)
        assert leave.wait(10)


def test_photos_wait_for_memory_in_turn_and_one_too_large_to_share_runs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    shared, order = budget(monkeypatch, 10**9), []  # 0.7 GB for photos at once, 0.9 GB for one
    leave = {name: threading.Event() for name in ("a", "b", "large", "c")}
    sizes = {"a": (400, 500), "b": (400, 500), "large": (800, 750), "c": (100, 100)}
    threads = []
    for name, size in sizes.items():
        arguments = (shared.reserve(*size), order, name, leave[name])
        threads.append(threading.Thread(target=enter, args=arguments))
        threads[-1].start()
        time.sleep(0.05)
    assert order == ["a", "b"]  # the small one does not overtake
    leave["a"].set()
    time.sleep(0.05)
    assert order == ["a", "b"]
    leave["b"].set()
    time.sleep(0.05)
    assert order == ["a", "b", "large"]
    leave["large"].set()
    leave["c"].set()
    for thread in threads:
        thread.join()
    assert order == ["a", "b", "large", "c"]


def test_the_memory_is_free_again_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = budget(monkeypatch, 10**9)
    for _ in range(3):
        with pytest.raises(RuntimeError), shared.reserve(700, 700):
            raise RuntimeError("the model failed")


def test_photos_at_once_are_bounded_by_cores_photos_and_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refs = crawl(write_photos(tmp_path / "images", 6, (1000, 750))).images

    def at_once(available: int | None, photos: int = 6, threads: int = 4, **settings: int) -> int:
        budget(monkeypatch, available)
        return photos_at_once(refs[:photos], Settings.load(extractor="disk", threads=threads, **settings))

    plenty, two = 10**12, int(2 * 1000 * 750 * 1400 / 0.7) + 1
    assert [at_once(plenty), at_once(plenty, photos=3), at_once(plenty, threads=1)] == [4, 3, 1]
    assert [at_once(two), at_once(two // 2), at_once(10**6)] == [2, 1, 1]
    assert at_once(two, resize=500) == 4
    assert at_once(None, threads=64, photos=6) == 3
    assert photos_at_once([], Settings(threads=4)) == 1


def test_photos_whose_headers_cannot_be_read_count_as_usual_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs = [ImageRef(name, tmp_path / name) for name in "abcd"]
    budget(monkeypatch, int(3 * 12e6 * 1400 / 0.7) + 1)
    assert photos_at_once(refs, Settings(extractor="disk", threads=4, resize=0)) == 3
