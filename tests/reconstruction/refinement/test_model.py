"""Refinement of a model: more accurate on sharp photos, never worse on bad ones."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from lgbatch.reconstruction.evaluation.evaluate import evaluate
from lgbatch.reconstruction.refinement.model import Options, Outcome, refine_model
from lgbatch.reconstruction.refinement.photos import GreyPhotos
from lgbatch.types import ByteArray
from tests.reconstruction.refinement.helpers import Change, Scene, make_scene

AUTO = Options(fixed=False, intrinsics="auto", threads=2, adjust_threads=1)


def refined(scene: Scene, options: Options = AUTO) -> Outcome:
    return refine_model(scene.model, GreyPhotos(scene.photos), options)


def position_errors(scene: Scene, outcome: Outcome) -> tuple[float, float]:
    """The median position errors of the cameras, before and after."""
    before, after = (evaluate(model, scene.truth).position_median for model in (scene.model, outcome.model))
    assert before is not None and after is not None
    return before, after


def test_alignment_makes_a_model_several_times_more_accurate(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "photos")
    outcome, figures = refined(scene), refined(scene).figures
    before, after = position_errors(scene, outcome)
    assert after < before / 4
    assert figures["change"] == "aligned" and figures["principal_points"] == 0
    assert figures["held_out_after"] < figures["held_out_before"] / 4
    assert figures["error_after"] < 0.1 < 0.5 < figures["error_before"]
    assert 0.95 * figures["observations"] < figures["aligned"] <= figures["kept"] <= figures["observations"]
    assert 0.5 < figures["moved"] < 2


def test_the_model_that_is_refined_is_not_changed_and_the_result_is_always_the_same(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "photos", points=150)
    scene.model.write(tmp_path)
    first, second = refined(scene), refined(scene, replace(AUTO, threads=1))
    for name in "before", "first", "second":
        (tmp_path / name).mkdir()
    scene.model.write(tmp_path / "before")
    first.model.write(tmp_path / "first")
    second.model.write(tmp_path / "second")
    for file in "cameras.bin", "images.bin", "points3D.bin":
        assert (tmp_path / file).read_bytes() == (tmp_path / "before" / file).read_bytes()
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


def blurred(sigma: float) -> Change:
    return lambda photo, _: np.asarray(cv2.GaussianBlur(photo, (0, 0), sigma), np.uint8)


def noisy(deviation: float) -> Change:
    return lambda photo, rng: np.clip(photo + rng.normal(0, deviation, photo.shape), 0, 255).astype(np.uint8)


def exposed(photo: ByteArray, rng: np.random.Generator) -> ByteArray:
    """Multiply the brightness by 0.4 to 1.8."""
    return np.clip(photo * rng.uniform(0.4, 1.8), 0, 255).astype(np.uint8)


def patched(photo: ByteArray, rng: np.random.Generator) -> ByteArray:
    """Move 120 pieces of the photo elsewhere."""
    changed = photo.copy()
    for x, y, from_x, from_y in rng.integers(0, (370, 270, 370, 270), (120, 4)):
        changed[y : y + 30, x : x + 30] = photo[from_y : from_y + 30, from_x : from_x + 30]
    return changed


BAD: dict[str, Change] = {
    "blur 2": blurred(2),
    "blur 8": blurred(8),
    "noise 10": noisy(10),
    "noise 60": noisy(60),
    "exposure": exposed,
    "moving patches": patched,
    "black": lambda photo, _: np.zeros_like(photo),
}


@pytest.mark.parametrize("change", BAD.values(), ids=BAD)
@pytest.mark.parametrize("noise", [0.4, pytest.param(0.8, marks=pytest.mark.slow)])
@pytest.mark.parametrize("count", [6, pytest.param(12, marks=pytest.mark.slow)])
def test_bad_photos_do_not_make_a_model_worse(tmp_path: Path, change: Change, noise: float, count: int) -> None:
    scene = make_scene(tmp_path / "photos", change=change, noise=noise, count=count)
    outcome = refined(scene)
    before, after = position_errors(scene, outcome)
    assert after < before if outcome.figures.get("change") else after == before


def test_few_points_are_no_evidence(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "photos", points=30)
    outcome = refined(scene)
    assert outcome.model is scene.model and outcome.figures["reason"].startswith("too few points")
