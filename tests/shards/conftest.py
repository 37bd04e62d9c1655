"""Fixtures of the tests of shards: painted photos, stand-in models, and the workspace of one run."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lgbatch.pairing import methods
from lgbatch.pipelines import sfm
from tests.shards.helpers import SETTINGS, Set
from tests.torture.harness import scene, stand_in_models


@pytest.fixture(scope="package", autouse=True)
def without_kernels() -> Iterator[None]:
    """The stand-in models run in ONNX Runtime."""
    with stand_in_models.without_kernels():
        yield


@pytest.fixture(scope="session")
def shard_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the stand-in models."""
    return stand_in_models.write(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def shard_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine photos."""
    folder = tmp_path_factory.mktemp("photos")
    scene.render(folder, 9)
    return folder


@pytest.fixture(scope="session")
def single(shard_models: Path, shard_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace of one run of all pairs."""
    out = tmp_path_factory.mktemp("single")
    sfm.run(shard_photos, out, models=shard_models, settings=SETTINGS)
    return out


@pytest.fixture(scope="session")
def single_in_rounds(shard_models: Path, shard_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace of one run in rounds."""
    out = tmp_path_factory.mktemp("single-rounds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(methods, "EXHAUSTIVE", 5)
        sfm.run(shard_photos, out, models=shard_models, settings=SETTINGS)
    return out


@pytest.fixture
def planned(tmp_path: Path, shard_photos: Path, shard_models: Path) -> Set:
    """A plan of seven units a step."""
    return Set(shard_photos, tmp_path / "out", shard_models)
