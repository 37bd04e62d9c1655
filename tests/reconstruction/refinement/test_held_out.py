"""Held-out observations: errors that the observation itself does not lessen."""

from pathlib import Path

import numpy as np
import pytest

from lgbatch.reconstruction.refinement.held_out import choose_held_out, held_out_errors, is_significant
from lgbatch.reconstruction.refinement.tracks import Tracks
from tests.reconstruction.refinement.helpers import make_scene


def test_an_error_of_a_held_out_observation_shows_in_full(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "photos", noise=0.0)
    tracks = Tracks.of(scene.model)
    held, positions, kept = choose_held_out(tracks), tracks.positions(scene.model), np.ones(len(tracks.image), bool)
    assert np.array_equal(held, choose_held_out(tracks))
    assert 0.05 < len(held) / len(kept) < 0.11
    assert len(np.unique(tracks.point[held])) == len(held) and tracks.lengths()[tracks.point[held]].min() >= 4
    assert held_out_errors(scene.model, tracks, positions, kept, held).max() < 0.05
    positions[held] += (3, 4)
    assert held_out_errors(scene.model, tracks, positions, kept, held) == pytest.approx(5, abs=0.05)


def test_a_point_without_two_other_observations_has_no_error(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "photos", points=50)
    tracks = Tracks.of(scene.model)
    held, positions = choose_held_out(tracks), tracks.positions(scene.model)
    kept = np.ones(len(tracks.image), bool)
    kept[(tracks.point == tracks.point[held[0]]) & (np.arange(len(kept)) != held[0])] = False
    errors = held_out_errors(scene.model, tracks, positions, kept, held)
    assert np.isinf(errors[0]) and np.isfinite(errors[1:]).all()


def test_errors_are_compared_in_pairs() -> None:
    before = np.random.default_rng(0).rayleigh(1, 400)
    after = 0.9 * before
    assert is_significant(before, after) and not is_significant(after, before) and not is_significant(before, before)
    after[:10] = np.inf
    assert is_significant(before, after) and not is_significant(before[:10], after[:10])
    other = np.random.default_rng(1).rayleigh(1, 400)
    assert not is_significant(before, other) and not is_significant(other, before)
