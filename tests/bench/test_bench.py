"""The figures of `lgbatch bench`. Speed itself is not tested."""

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from lgbatch.bench import extraction, geometry, matching
from lgbatch.bench.engines import Scene
from lgbatch.bench.operations import exits_per_layer, full_depth_trace, operations, padding_fraction
from lgbatch.bench.processes import whole
from lgbatch.bench.rows import Row, agreement, recall, spread
from lgbatch.cli import main as cli
from lgbatch.config import Settings
from lgbatch.matching.lightglue import StageTrace
from lgbatch.pairing.candidates import exhaustive
from lgbatch.pipelines import scene
from lgbatch.types import Features, IntArray, Pair

ROW_KEYS = {
    "name",
    "pairs_per_second",
    "pairs_per_second_by_turn",
    "timed_pairs",
    "ratio_to_adaptive",
    "ratio_to_fixed",
    "agreement",
    "recall",
    "matched_pairs",
    "matches",
    "gflops",
    "share_of_matrix_rate",
    "padding",
    "stops",
    "memory_mb",
}


def lengths(*counts: int) -> np.ndarray:
    """Lengths of a batch."""
    return np.array(counts, dtype=np.int64)


def test_operations_of_a_pair_at_full_depth_equal_those_counted_by_hand() -> None:
    # Nine layers: 18 W^2 N + 4 W N^2 per side, then 16 W^2 per keypoint and 8 W M N for both sides. Stem and head.
    w, n = 256, 1024
    trace = full_depth_trace([(n, n)], [n, n])
    expected = 9 * (2 * (18 * w * w * n + 4 * w * n * n) + 16 * w * w * 2 * n + 8 * w * n * n)
    expected += 2 * (2 * 128 * w * n) + 2 * w * (w * 2 * n + n * n)
    assert operations(trace, 128) == expected
    assert 0.95 < operations(trace, 128, published=True) / expected < 1.05


def test_the_stem_of_an_image_in_two_pairs_counts_once() -> None:
    pairs = [(10, 20), (10, 30)]
    per_pair, per_image = full_depth_trace(pairs, [10, 20, 10, 30]), full_depth_trace(pairs, [10, 20, 30])
    stem = operations([("stem", (lengths(10),))], 128)
    assert operations(per_pair, 128) - operations(per_image, 128) == stem > 0


def test_padding_and_exits_are_computed_from_the_trace() -> None:
    trace = [
        ("stem", (lengths(100),)),
        ("layer0", (lengths(100, 50), lengths(100, 50))),
        ("head0", (lengths(50), lengths(50))),
        ("layer1", (lengths(90), lengths(80))),
        ("head1", (lengths(90), lengths(80))),
    ]
    assert exits_per_layer(trace) == [1, 1, 0, 0, 0, 0, 0, 0, 0]
    assert padding_fraction(trace) == pytest.approx(1 - 470 / 570)
    assert padding_fraction([]) == 0


def test_a_sample_is_evenly_spread_and_a_subset_of_a_larger_one() -> None:
    items = list(range(85))
    samples = [spread(items, count) for count in (4, 12, 40, 85, 1000)]
    assert [len(sample) for sample in samples] == [4, 12, 40, 85, 85]
    for small, large in itertools.pairwise(samples):
        assert set(small) <= set(large) and small == sorted(small)
    assert max(np.diff(samples[1])) < 4 * 85 / 12


def test_agreement_and_recall_count_the_pairs_that_both_matched() -> None:
    ab, ac, bc = Pair("a", "b"), Pair("a", "c"), Pair("b", "c")
    none = np.zeros((0, 2), np.int32)
    ours = {ab: np.array([[0, 0], [1, 1], [2, 2]], np.int32), ac: none, bc: np.array([[5, 5]], np.int32)}
    theirs = {ab: np.array([[0, 0], [1, 1], [2, 3]], np.int32), ac: none}
    assert agreement(ours, theirs) == 2 / 4
    assert agreement({ac: none}, theirs) == 1
    assert agreement({bc: none}, theirs) is None
    assert recall(ours, theirs) == 2 / 3 and recall({ac: none}, theirs) == 1 and recall({bc: none}, theirs) is None


class FullDepth:
    """An engine that matches nothing and reports the trace of a run at full depth."""

    once_per_image = False

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.pairs: Sequence[Pair] = []

    def match(self, pairs: Sequence[Pair]) -> None:
        self.pairs = pairs

    def matches(self) -> dict[Pair, IntArray]:
        return {pair: np.zeros((0, 2), np.int32) for pair in self.pairs}

    def trace(self) -> StageTrace | None:
        sides = [(self.scene.counts[a], self.scene.counts[b]) for a, b in self.pairs]
        return full_depth_trace(sides, [count for pair in sides for count in pair])


@pytest.mark.parametrize("fixed", [False, True])
def test_the_rate_of_a_sample_is_scaled_by_its_operations(fixed: bool) -> None:
    features = {}
    for name, count in {"a": 50, "b": 100, "c": 400, "d": 1000, "e": 2000}.items():
        rows = np.zeros((count, 128), np.float32)
        features[name] = Features(rows[:, :2], rows[:, 0], rows, (640, 480))
    scene = Scene(features, exhaustive(list(features)))
    engine = FullDepth(scene)
    row = Row("fake", lambda: engine, scene, fixed=fixed)
    row.prepare(seconds=0)
    row.run_turn()
    assert len(row.matches) == (4 if fixed else 10)
    assert list(engine.pairs) == spread(scene.pairs, 4)
    sample = operations(engine.trace() or [], 128)
    engine.match(scene.pairs)
    average = operations(engine.trace() or [], 128) / 10
    engine.match(spread(scene.pairs, 4))
    assert abs(sample / average - 4) > 0.5
    assert row.rates() == [pytest.approx(sample / average / row.seconds[0])]


@pytest.mark.parametrize("command", [["bench"], ["bench", "match"], ["bench", "--repeats", "1"], ["bench", "run"]])
def test_bench_without_a_subcommand_runs_bench_match(command: list[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(cli.app, [*command, str(tmp_path / "none")])
    assert result.exit_code == 2
    assert result.stderr.startswith("lgbatch: cannot open the photo folder") and result.stderr.count("\n") == 1


def test_help_lists_the_subcommands() -> None:
    text = CliRunner().invoke(cli.app, ["bench", "--help"]).stdout
    assert " match " in text and " extract " in text and " run " in text


def test_cameras_of_other_photos_are_refused_before_anything_runs(tmp_path: Path) -> None:
    folder = shrunk(None, tmp_path / "photos", 2)
    truth = tmp_path / "truth"
    truth.mkdir()
    (truth / "other.jpg.camera").write_text("1 0 0\n0 1 0\n0 0 1\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n0 0 0\n64 48\n")
    result = CliRunner().invoke(cli.app, ["bench", "run", str(folder), "--truth", str(truth)])
    assert result.exit_code == 2
    assert "has the cameras of 0 of the photos" in result.stderr


def shrunk(photos: Path | None, folder: Path, count: int) -> Path:
    """Write small copies of the first photos of a folder, or blank photos, to a new folder."""
    folder.mkdir()
    files = sorted(photos.glob("*.jpg"))[:count] if photos else [None] * count
    for number, file in enumerate(files):
        image = cv2.imread(str(file)) if file else np.zeros((48, 64, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number}.jpg"), cv2.resize(image, (320, 240), interpolation=cv2.INTER_AREA))
    return folder


@pytest.fixture
def one_thread() -> Iterator[Settings]:
    """Settings for tiny pairs: on a busy machine, several threads would wait for each other longer than they work."""
    threads = torch.get_num_threads()
    yield Settings(max_keypoints=100, threads=1, precision="fp32")
    torch.set_num_threads(threads)


def test_keypoints_are_repeated_at_their_positions_under_the_homography() -> None:
    pixels = np.zeros((300, 400, 3), np.uint8)
    cv2.rectangle(pixels, (150, 100), (250, 200), (255, 255, 255), -1)
    warped, homography = geometry.warp_photo(pixels, 3)
    points = np.random.default_rng(0).uniform([20, 20], [380, 280], (200, 2)).astype(np.float32)
    moved = cv2.perspectiveTransform(points[None].astype(np.float64), homography)[0].astype(np.float32)
    centre = cv2.perspectiveTransform(np.array([[[200.0, 150.0]]]), homography)[0, 0].round().astype(int)
    assert warped[centre[1], centre[0]].tolist() == [255, 255, 255]
    assert geometry.repeatability(points, moved, homography, (400, 300)) == 1
    assert geometry.repeatability(points, moved + 4, homography, (400, 300)) < 0.2
    assert geometry.repeatability(points, moved[:0], homography, (400, 300)) == 0


def test_two_view_accuracy_separates_correct_from_shuffled_matches() -> None:
    cameras = dict(list(scene.cameras().items())[:3])
    world = np.random.default_rng(0).uniform([-2, -1, 1], [2, 1, 5], (300, 3))
    keypoints = {name: camera.project(world).astype(np.float32) for name, camera in cameras.items()}
    rows = np.stack([np.arange(300)] * 2, axis=1).astype(np.int32)
    shuffled = np.stack([rows[:, 0], np.roll(rows[:, 1], 7)], axis=1)
    pairs = exhaustive(list(cameras))
    correct = geometry.two_view_accuracy(dict.fromkeys(pairs, rows), keypoints, cameras, 1.0)
    wrong = geometry.two_view_accuracy(dict.fromkeys(pairs, shuffled), keypoints, cameras, 1.0)
    assert (correct.precision, correct.correct) == (1, 300) and correct.auc > 98
    assert wrong.precision < 0.1 and wrong.auc < 30


@pytest.mark.weights
def test_bench_extract_reports_speed_and_repeatability(models: Path, gallery: Path, tmp_path: Path) -> None:
    photos = shrunk(gallery, tmp_path / "photos", 2)
    settings = Settings(extractor="disk", max_keypoints=100, threads=1, precision="fp32")
    report = extraction.run(photos, models=models, settings=settings, extractors=["disk"], repeats=1)
    (row,) = json.loads(json.dumps(report.as_dict()))["rows"]
    assert (row["name"], row["keypoints"]) == ("disk", 100)
    assert row["photos_per_second"] > row["pytorch_photos_per_second"] > 0
    assert 0.3 < row["repeatability"] <= 1
    assert "disk" in report.format()


def test_an_extractor_without_models_has_its_reason_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    photos, models = shrunk(None, tmp_path / "photos", 1), tmp_path / "models"
    models.write_text("not a folder")
    report = extraction.run(photos, models=models, settings=Settings(), extractors=["disk"], repeats=1)
    assert "cannot write models" in report.format()
    result = CliRunner().invoke(cli.app, ["bench", "extract", str(photos), "--only", "disc"])
    assert result.exit_code == 2 and "extractor must be one of disk" in result.stderr


@pytest.mark.weights
def test_all_engines_find_the_same_matches(models: Path, gallery: Path, tmp_path: Path, one_thread: Settings) -> None:
    photos, others = shrunk(gallery, tmp_path / "photos", 3), shrunk(None, tmp_path / "others", 1)
    cv2.imwrite(str(others / "far.jpg"), cv2.imread(str(photos / "0.jpg"))[::-1])
    effort = matching.Effort(repeats=1, seconds=60, other_pairs=2)
    report = matching.run(photos, others, models=models, settings=one_thread, effort=effort)
    values = json.loads(json.dumps(report.as_dict()))
    assert (values["images"], values["pairs"], values["pairs_that_do_not_overlap"]) == (5, 5, 2)
    assert values["matrix_gflops"] > 1 and values["machine"]["cores"] >= 1
    assert {"date", "versions", "settings", "repeats", "peak_memory_mb"} <= values.keys()
    assert len(values["rows"]) == 7
    for row in values["rows"]:
        assert row.keys() == ROW_KEYS
        assert row["agreement"] == 1.0
        assert row["matches"] > 50 and row["pairs_per_second"] > 0
        assert row["stops"] is None or sum(row["stops"]) == row["matched_pairs"]
        assert row["name"] in report.format()
        assert row["timed_pairs"] == 5
    ours, files, process, fixed, single, published, published_fixed = values["rows"]
    assert ours["matches"] == files["matches"] == process["matches"] == published["matches"]
    assert ours["stops"] == published["stops"] and fixed["stops"] == single["stops"] == [0] * 8 + [5]
    assert published["ratio_to_adaptive"] == published_fixed["ratio_to_fixed"] == 1


@pytest.mark.weights
@pytest.mark.slow
def test_both_pipelines_reconstruct_the_demo(models: Path, gallery: Path) -> None:
    report = whole.run(gallery, models=models, settings=Settings(max_keypoints=512), repeats=1)
    values = json.loads(json.dumps(report.as_dict()))
    assert [row["registered_images"] for row in values["rows"]] == [12, 12]
    for row in values["rows"]:
        assert {"extract", "match", "map", "other"} <= row["seconds_by_stage"].keys()
        assert sum(row["seconds_by_stage"].values()) == pytest.approx(row["seconds"])
        assert row["name"] in report.format()
    assert values["ratio"] == pytest.approx(values["rows"][1]["seconds"] / values["rows"][0]["seconds"])
