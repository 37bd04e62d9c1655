"""Images that look alike or are near each other."""

import numpy as np

from lgbatch.pairing.retrieval import most_similar, train_vocabulary, vlad
from lgbatch.pairing.spatial import local_metres, nearest
from lgbatch.types import FloatArray


def unit(values: FloatArray) -> FloatArray:
    rows: FloatArray = values / np.linalg.norm(values, axis=1, keepdims=True)
    return rows


def test_images_with_the_same_descriptors_are_most_similar() -> None:
    rng = np.random.default_rng(0)
    scenes = [unit(rng.standard_normal((80, 32)).astype(np.float32)) for _ in range(6)]
    images = [unit(scene + 0.05 * rng.standard_normal(scene.shape).astype(np.float32)) for scene in scenes * 2]
    vocabulary = train_vocabulary(images, 16)
    vectors = np.stack([vlad(image, vocabulary) for image in images])
    assert vocabulary.shape == (16, 32) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert most_similar(vectors, 3)[:, 0].tolist() == [6, 7, 8, 9, 10, 11, 0, 1, 2, 3, 4, 5]
    np.testing.assert_array_equal(train_vocabulary(images, 16), vocabulary)  # deterministic


def test_few_or_no_descriptors() -> None:
    empty = np.zeros((0, 8), np.float32)
    vocabulary = train_vocabulary([np.eye(3, 8, dtype=np.float32), empty], 64)
    assert vocabulary.shape == (3, 8)
    assert vlad(empty, vocabulary).tolist() == [0] * 24
    assert vlad(np.eye(3, 8, dtype=np.float32), train_vocabulary([empty])).shape == (0,)
    assert vlad(np.eye(3, 8, dtype=np.float32), train_vocabulary([])).shape == (0,)


def test_similar_images_of_many_blocks() -> None:
    rng = np.random.default_rng(0)
    vectors = unit(rng.standard_normal((1200, 8)).astype(np.float32))
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -2)
    np.testing.assert_array_equal(most_similar(vectors, 4), np.argsort(-similarity, axis=1, kind="stable")[:, :4])


def test_positions_in_metres_and_the_nearest() -> None:
    latitudes, longitudes = np.array([60.0, 60.002, 60.0, 60.0]), np.array([179.999, 179.999, -179.999, 179.9995])
    metres = local_metres(latitudes, longitudes)
    np.testing.assert_allclose(metres, [[0, 0], [0, 222.6], [111.3, 0], [27.8, 0]], atol=0.5)
    assert nearest(metres, 2).tolist() == [[3, 2], [0, 3], [3, 0], [0, 2]]
    points = np.random.default_rng(0).random((2500, 2)) * 1000
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    np.fill_diagonal(distances, np.inf)
    np.testing.assert_array_equal(nearest(points, 3), np.argsort(distances, axis=1)[:, :3])
