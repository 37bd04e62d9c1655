"""Fixtures shared by several test files."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from lgbatch.config import Settings
from lgbatch.export.extractors import KINDS
from lgbatch.export.models import ensure_models
from lgbatch.features.network import Extractor
from lgbatch.photos.crawl import crawl
from lgbatch.photos.decode import decode
from lgbatch.pipelines import scene
from lgbatch.runtime.registry import default_folder
from lgbatch.types import Features
from tests.helpers import synthetic


@pytest.fixture(scope="session")
def models() -> Path:
    """The folder of the real models, exported from the published weights if missing."""
    folder = default_folder()
    for extractor in ("disk", Settings().extractor):
        ensure_models(folder, extractor, KINDS)
    return folder


@pytest.fixture(scope="session")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the demo's photos."""
    folder = tmp_path_factory.mktemp("gallery")
    scene.render(folder)
    return folder


@pytest.fixture(scope="session")
def demo_features(models: Path, gallery: Path) -> Sequence[Features]:
    """Features of the demo's photos, in order, with up to 1000 keypoints of DISK each."""
    settings = Settings(extractor="disk", max_keypoints=1000)
    extractor = Extractor(models, settings)
    return [extractor.extract([decode(ref, settings.resize)])[0] for ref in crawl(gallery).images]


@pytest.fixture
def source(tmp_path: Path) -> synthetic.Source:
    """Random keypoints and matches of three blank photos in tmp_path/images."""
    return synthetic.scene(tmp_path / "images")


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """The path of a new database, beside the folder `images` that `synthetic.import_source` expects."""
    return tmp_path / "database.db"
