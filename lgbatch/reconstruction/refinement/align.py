"""One round of alignment over the photos of a model: reference patches are cut out, and found in the other views."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pycolmap

from lgbatch.reconstruction.refinement.patches import align, cut_templates, no_templates
from lgbatch.reconstruction.refinement.photos import GreyPhotos
from lgbatch.reconstruction.refinement.tracks import Array, Tracks, choose_references, patch_maps, reference_patches
from lgbatch.types import BoolArray, ByteArray, LongArray
from lgbatch.workspace.prefetch import prefetch

LEAST_CORRELATION = 0.8
FARTHEST = 4.0
"""Pixels. An observation that moves farther has found something else."""
_BLOCK_POINTS = 50_000
"""Points whose patches are in the memory at once: 140 MB."""


@dataclass(eq=False)
class Observations:
    """The state of the observations of a model during its refinement."""

    positions: Array
    """(O, 2) COLMAP's pixels."""
    aligned: BoolArray
    """(O,) the observation agrees with the reference view of its point, or is the reference."""

    def kept(self, tracks: Tracks) -> BoolArray:
        """The observations (O,) that stay in the model: the aligned ones, and all of points with fewer than two."""
        return self.aligned | (tracks.lengths(self.aligned) < 2)[tracks.point]


class Aligner:
    """Aligns the observations of one model. The reference views are chosen once."""

    def __init__(
        self,
        model: pycolmap.Reconstruction,
        tracks: Tracks,
        photos: GreyPhotos,
        threads: int,
    ) -> None:
        """Choose the reference views. Patches are found in `threads` threads."""
        self._tracks, self._photos, self._threads = tracks, photos, threads
        self._reference = choose_references(model, tracks)
        aligned = np.zeros(len(tracks.image), bool)
        aligned[self._reference] = True
        self.observations = Observations(tracks.positions(model), aligned)

    def align(self, model: pycolmap.Reconstruction, *, projected: bool = False) -> None:
        """Align the observations that are not yet: from their positions, or from where their points are `projected`."""
        tracks, now = self._tracks, self.observations
        patches = reference_patches(model, tracks, now.positions, self._reference)
        maps = patch_maps(model, tracks, patches)
        start = tracks.project(model, patches[tracks.point, 0]) if projected else now.positions.copy()
        todo = ~now.aligned & np.isfinite(start).all(axis=1)
        for points in self._blocks():
            self._align_block(model, points, todo, start, maps)

    def _blocks(self) -> list[LongArray]:
        """The points in blocks, those with the same reference view together."""
        order = np.argsort(self._reference, kind="stable")  # observations are sorted by image
        return [order[i : i + _BLOCK_POINTS] for i in range(0, len(order), _BLOCK_POINTS)]

    def _align_block(
        self, model: pycolmap.Reconstruction, points: LongArray, todo: BoolArray, start: Array, maps: Array
    ) -> None:
        tracks, now, positions = self._tracks, self.observations, self.observations.positions
        place = np.full(len(tracks.points), -1)
        place[points] = np.arange(len(points))
        wanted = todo & (place[tracks.point] >= 0)
        referred = np.zeros(len(todo), bool)
        referred[self._reference[points]] = True
        referred &= (np.bincount(tracks.point[wanted], minlength=len(tracks.points)) > 0)[tracks.point]
        templates = no_templates(len(points))

        def cut(photo: ByteArray, rows: LongArray) -> None:
            templates.put(place[tracks.point[rows]], cut_templates(photo, positions[rows] - 0.5))

        def find(photo: ByteArray, rows: LongArray) -> None:
            found = align(photo, templates[place[tracks.point[rows]]], start[rows] - 0.5, maps[rows])
            near = np.linalg.norm(found.positions + 0.5 - start[rows], axis=1) < FARTHEST
            good = (found.correlation > LEAST_CORRELATION) & near
            positions[rows[good]], now.aligned[rows[good]] = found.positions[good] + 0.5, True

        self._each_photo(model, referred, cut)
        self._each_photo(model, wanted, find)

    def _each_photo(
        self, model: pycolmap.Reconstruction, chosen: BoolArray, work: Callable[[ByteArray, LongArray], None]
    ) -> None:
        """Call `work` with each photo that has `chosen` observations (O,), and their rows, in threads."""
        tasks = [(i, rows.start + np.flatnonzero(chosen[rows])) for i, rows in self._tracks.by_image()]

        def one(task: tuple[int, LongArray]) -> None:
            image = model.images[task[0]]
            camera = model.cameras[image.camera_id]
            photo = self._photos.read(image.name, (camera.width, camera.height)) if len(task[1]) else None
            if photo is not None:
                work(photo, task[1])

        for _ in prefetch(one, tasks, threads=self._threads, depth=2 * self._threads):
            pass
