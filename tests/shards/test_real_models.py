"""Units with the real models: demo photos in seven units on three processes are one run, array by array."""

from pathlib import Path

import pytest

from lgbatch.config import Settings
from lgbatch.pairing import methods
from lgbatch.pipelines import sfm
from lgbatch.shards.launchers.launcher import run_plan
from lgbatch.shards.launchers.local import LocalLauncher
from tests.shards.helpers import Set, differences

pytestmark = [pytest.mark.weights, pytest.mark.slow]
SETTINGS = Settings(max_keypoints=600, resize=512, second_try=0, refine=False)


@pytest.mark.parametrize("rounds", [False, True])
def test_seven_units_on_three_processes_are_one_run(
    models: Path, gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounds: bool
) -> None:
    monkeypatch.setattr(methods, "EXHAUSTIVE", 5 if rounds else 40)
    several = Set(gallery, tmp_path / "out", models)
    several.plan(settings=SETTINGS)
    assert run_plan(several.out, LocalLauncher(Settings(threads=3), workers=3), lambda _: None).finished
    summary = sfm.run(gallery, tmp_path / "single", models=models, settings=SETTINGS)
    assert bool(summary.rounds) == rounds
    assert differences(several.out, tmp_path / "single") == []
    merged = {name: (several.out / name).read_bytes() for name in ("features.h5", "matches.h5")}
    assert sfm.run(gallery, several.out, models=models, settings=SETTINGS).registered_images == 12
    assert {name: (several.out / name).read_bytes() for name in merged} == merged
