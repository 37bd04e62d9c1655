"""The advice on unregistered images, the commands that it names, and the table of models."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lgbatch.config import Settings, Stage
from lgbatch.reconstruction.advice import advice
from lgbatch.reconstruction.results import Model, Reconstruction, Unregistered, format_table
from lgbatch.workspace.rerun import Rerun
from lgbatch.workspace.stage import StageResult, StageRun, run_stage
from tests.helpers.synthetic import synthetic
from tests.reconstruction.helpers import fill, rerun, run


def test_advice_on_images_without_keypoints(tmp_path: Path) -> None:
    source = synthetic(tmp_path, 3)
    source.points = {name: points[:0] for name, points in source.points.items()}
    source.matches = {}
    fill(tmp_path, source)
    result = run(tmp_path)
    assert (result.images, result.images_with_keypoints, result.models) == (3, 0, ())
    text = advice(result, rerun())
    assert "of 3 photos 3 have no keypoints" in text and "earlier" not in text and "`" not in text


def test_advice_on_matches_without_a_common_geometry(tmp_path: Path) -> None:
    source = synthetic(tmp_path, 3)
    rng = np.random.default_rng(0)
    for pair, indices in source.matches.items():
        source.matches[pair] = np.stack([indices[:12, 0], rng.permutation(indices[:12, 1])], axis=1)
    fill(tmp_path, source)
    result = run(tmp_path)
    assert (result.matched_pairs, result.verified_pairs, result.models) == (3, 0, ())
    assert "3 pairs match, but none" in advice(result, rerun())


NO_MODEL = Reconstruction(
    images=9,
    images_with_keypoints=9,
    matched_pairs=30,
    verified_pairs=20,
    most_inliers=500,
    most_keypoints=2048,
    longest_side=4000,
    cameras=9,
    models=(),
    seconds_verification=1.0,
    seconds_mapping=1.0,
)
MODEL = Model(4, 100, 300, 0.5, 3.0)
PARTIAL = replace(NO_MODEL, models=(MODEL,), unregistered=(Unregistered("a.jpg", "not verified", "of 9 pairs"),))
RUN = "`lgbatch run photos -o out "


@pytest.mark.parametrize(
    ("changes", "settings", "cause", "way_out"),
    [
        ({"images": 1, "images_with_keypoints": 1}, {}, "a model needs two photos: add", "other positions"),
        ({"images_with_keypoints": 1}, {}, "of 9 photos 8 have no keypoints", f"{RUN}--resize 1600 --on-change"),
        ({"matched_pairs": 0}, {"pairing": "sequential"}, "no two images match", f"{RUN}--pairing exhaustive`"),
        ({"matched_pairs": 0}, {}, "no two images match", "--max-keypoints 4096 --resize 1600 --on-change recompute`"),
        ({"verified_pairs": 0}, {"resize": 1600}, "30 pairs match", f"{RUN}--max-keypoints 4096 --resize 1600 --on"),
        ({"verified_pairs": 0}, {"resize": 2048, "max_keypoints": 4096}, "30 pairs match", "add photos that overlap"),
        ({"most_inliers": 40}, {}, "the best has 40 inlier matches", "--max-keypoints 4096"),
        ({}, {}, "hardly moved", f"{RUN}--camera-mode single`"),
        ({}, {"mapper": "global"}, "three images", f"{RUN}--mapper incremental`"),
    ],
)
def test_advice_names_cause_and_the_whole_command(
    changes: dict[str, Any], settings: dict[str, Any], cause: str, way_out: str
) -> None:
    text = advice(replace(NO_MODEL, **changes), rerun(**settings))
    assert cause in text and way_out in text and "\n" not in text


def test_advice_ends_instead_of_going_in_a_circle() -> None:
    for result in NO_MODEL, replace(NO_MODEL, most_inliers=40), replace(NO_MODEL, matched_pairs=0), PARTIAL:
        used, seen = rerun(pairing="sequential", window=2, mapper="global", max_keypoints=2048), set()
        while command := re.search("`lgbatch run photos -o out ?(.*?)`", advice(result, used)):
            assert command[1] not in seen
            seen.add(command[1])
            words = command[1].split()
            values = {word[2:].replace("-", "_"): value for word, value in zip(words[::2], words[1::2], strict=True)}
            used = rerun(**{name: int(value) if value.isdecimal() else value for name, value in values.items()})
            result = replace(result, most_keypoints=used.settings.max_keypoints)
        assert seen


def test_no_command_is_suggested_that_changes_nothing() -> None:
    small = replace(PARTIAL, longest_side=1024, most_keypoints=900)
    assert advice(small, rerun()) == "the largest model has 4 of 9 images: for the others, add photos that overlap more"
    assert "`" not in advice(PARTIAL, rerun(max_keypoints=4096, resize=0))
    own = advice(PARTIAL, replace(rerun(pairing="sequential"), pairs=Path("my pairs.txt")))
    assert "--pairs 'my pairs.txt' --max-keypoints 4096" in own and "--pairing" not in own
    many = replace(PARTIAL, images=5000)
    assert "--window 30`" in advice(many, rerun(pairing="sequential"))


def test_photos_that_failed_call_for_no_other_settings() -> None:
    failed = Unregistered("b.jpg", "failed", "failed (extract): truncated")
    assert advice(replace(PARTIAL, unregistered=(failed,)), rerun()) == ""
    alone = replace(NO_MODEL, images=1, images_with_keypoints=1, unregistered=(failed, failed))
    assert "a model needs two photos, but of 3 photos 2 failed" in advice(alone, rerun())


def test_the_table_has_aligned_columns_and_one_line_per_model() -> None:
    lines = format_table([Model(11, 2227, 9786, 0.491, 4.394), Model(3, 50, 120, 0.7, 2.4)]).splitlines()
    assert len(lines) == 3 and len({len(line) for line in lines}) == 1
    assert lines[1].split() == ["0", "11", "2227", "9786", "0.49", "px", "4.39"]


PHOTOS, OUT = Path("my photos"), Path("out")


def test_a_run_is_repeated_with_its_own_settings_and_the_changes() -> None:
    settings = Settings(extractor="aliked-n16", max_keypoints=1024, on_change="keep", device="cpu")
    rerun = Rerun(settings=settings, photos=PHOTOS, workspace=OUT, models=Path("/m"))
    assert rerun.command(max_keypoints=4096) == (
        "lgbatch run 'my photos' -o out --models /m --extractor aliked-n16 --max-keypoints 4096 "
        "--on-change recompute --device cpu"
    )
    assert "--on-change keep --mapper" not in rerun.command(mapper="global")
    assert "--on-change keep" in rerun.command(mapper="incremental")


def test_single_steps_are_repeated_from_the_first_one_that_changes(tmp_path: Path) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Done(StageResult):
        """A result without figures."""

    (tmp_path / "pairs.txt").touch()
    made = Settings(extractor="aliked-n16", pairing="sequential", window=3)
    for name in "extract", "pairs":
        stage = StageRun(name=name, folder=tmp_path, settings=made, inputs={}, outputs=lambda: [], result=Done)
        run_stage(stage, lambda _: Done())
    rerun = Rerun.of_steps(Settings(mapper="global"), PHOTOS, tmp_path)
    assert (rerun.settings.extractor, rerun.settings.pairing, rerun.settings.mapper) == (
        "aliked-n16",
        "sequential",
        "global",
    )
    assert rerun.command(pairing="exhaustive").replace(str(tmp_path), "out") == (
        "lgbatch pairs -w out --pairing exhaustive && lgbatch match -w out --extractor aliked-n16"
        " && lgbatch reconstruct -w out --mapper global"
    )
    assert rerun.command(resize=1600).replace(str(tmp_path), "out") == (
        "lgbatch extract 'my photos' -w out --extractor aliked-n16 --resize 1600 --on-change recompute"
        " && lgbatch match -w out --extractor aliked-n16 --on-change recompute"
        " && lgbatch reconstruct -w out --mapper global"
    )
    assert rerun.command(mapper="incremental") == f"lgbatch reconstruct -w {tmp_path} --mapper incremental"


def test_single_steps_are_repeated_with_their_own_pairs_file_models_and_photos(tmp_path: Path) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Done(StageResult):
        """A result without figures."""

    out, other = tmp_path / "out", tmp_path / "other.txt"
    out.mkdir()
    other.touch()
    (out / "pairs.txt").touch()

    def finish(name: Stage, settings: Settings, **paths: Path) -> None:
        stage = StageRun(
            name=name, folder=out, settings=settings, inputs={}, outputs=lambda: [], result=Done, paths=paths
        )
        run_stage(stage, lambda _: Done())

    def command(default_models: Path, **changes: Any) -> str:
        used = Rerun.of_steps(Settings(), PHOTOS, out, photos_given=True, default_models=default_models)
        return used.command(**changes).replace(str(tmp_path), "T")

    finish("match", Settings(device="cpu"), models=tmp_path / "models")
    finish("import", Settings(), pairs=other)
    end = "-w T/out --images 'my photos'"
    assert command(tmp_path / "models", filter_threshold=0.2) == (
        f"lgbatch match T/other.txt {end} --filter-threshold 0.2 --on-change recompute --device cpu"
        f" && lgbatch reconstruct {end}"
    )
    assert command(tmp_path / "models", resize=1600) == (
        "lgbatch extract 'my photos' -w T/out --resize 1600 --on-change recompute --device cpu"
        " && lgbatch match T/other.txt -w T/out --on-change recompute --device cpu && lgbatch reconstruct -w T/out"
    )
    assert f"lgbatch match T/other.txt {end} --models T/models" in command(tmp_path, match_again=True)
    finish("import", Settings(), pairs=out / "mine.txt")  # skipped, as its inputs are the same
    (out / "mine.txt").touch()
    assert "lgbatch match T/out/mine.txt" in command(tmp_path, match_again=True)
    finish("import", Settings(), pairs=out / "pairs.txt")  # not as the pairs stage left it
    used = Rerun.of_steps(Settings(), PHOTOS, out)
    assert used.pairs == out / "pairs.txt" and "lgbatch match -w" in used.command(match_again=True)
    other.unlink()
    finish("import", Settings(), pairs=other)
    (out / "pairs.txt").unlink()
    assert command(tmp_path, match_again=True).startswith("lgbatch match -w T/out")
    assert command(tmp_path, resize=1600).count("lgbatch pairs -w T/out && lgbatch match -w") == 1


def test_settings_without_effect_are_not_repeated() -> None:
    for made in rerun(pairing="sequential", window=3), rerun(calibration="c.txt", camera_model="PINHOLE"):
        for changes in {"pairing": "exhaustive"}, {"mapper": "global"}:
            command = made.command(**changes)
            assert ("--window 3" in command) == (made.settings.window == 3 and "mapper" in changes)
            assert "--camera-model" not in command


def unregistered(**causes: int) -> tuple[Unregistered, ...]:
    names = {"pair": "no pair", "few": "few keypoints"}
    return tuple(Unregistered("a.jpg", names.get(c, c), "") for c, count in causes.items() for _ in range(count))  # type: ignore[arg-type]


def test_advice_fits_the_cause_of_most_photos() -> None:
    masked = advice(replace(PARTIAL, unregistered=unregistered(masked=3, few=1)), rerun(masks="m"))
    assert "invert masks" in masked and "`" not in masked
    empty = replace(NO_MODEL, images_with_keypoints=1, unregistered=unregistered(masked=7, few=1))
    assert "8 have no keypoints: give masks that hide less" in advice(empty, rerun(masks="m"))
    own = replace(rerun(), pairs=Path("own.txt"))
    alone = advice(replace(PARTIAL, unregistered=unregistered(pair=3, few=1)), own)
    assert alone.endswith("add pairs of them to own.txt and run `lgbatch run photos -o out --pairs own.txt`")
    chosen = advice(replace(PARTIAL, unregistered=unregistered(pair=3)), rerun(pairing="sequential", window=3))
    assert chosen.endswith("try `lgbatch run photos -o out --pairing exhaustive`, or add photos that overlap more")
    none = advice(replace(NO_MODEL, unregistered=unregistered(pair=7, few=2)), own)
    assert none.startswith("no pair names 7 of 9 images: add pairs of them to own.txt and run `lgbatch run photos")
    torn = replace(NO_MODEL, images=1, images_with_keypoints=1, unregistered=unregistered(failed=1))
    assert advice(torn, rerun()).endswith("of 2 photos 1 failed: replace the photos that failed, or add others")
    single = advice(replace(NO_MODEL, verified_pairs=0, matched_pairs=1), rerun())
    assert "1 pair matches, but none has" in single
    assert "the best has 1 inlier match and" in advice(replace(NO_MODEL, most_inliers=1), rerun())
