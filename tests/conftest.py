"""Fixtures that several test files share."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from lgbatch.config import Settings
from lgbatch.export.models import KINDS, ensure_models
from lgbatch.features.network import Extractor
from lgbatch.photos.crawl import crawl
from lgbatch.photos.decode import decode
from lgbatch.pipelines import scene
from lgbatch.runtime.registry import default_folder
from lgbatch.types import Features
from tests.helpers import synthetic


@pytest.fixture(scope="session")
def models() -> Path:
    """The real models, where the tool keeps them; made from the real weights when they are not there yet."""
    folder = default_folder()
    ensure_models(folder, "disk", KINDS)
    return folder


@pytest.fixture(scope="session")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's photos."""
    folder = tmp_path_factory.mktemp("gallery")
    scene.render(folder)
    return folder


@pytest.fixture(scope="session")
def demo_features(models: Path, gallery: Path) -> Sequence[Features]:
    """Up to 1000 keypoints of each of the demo's photos, in order."""
    settings = Settings(max_keypoints=1000)
    extractor = Extractor(models, settings)
    return [extractor.extract([decode(ref, settings.resize)])[0] for ref in crawl(gallery).images]


@pytest.fixture
def source(tmp_path: Path) -> synthetic.Source:
    """Three blank photos in the folder `images`, with random keypoints and matches."""
    return synthetic.scene(tmp_path / "images")


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Where `synthetic.import_source` looks for the photos beside it; there is no file yet."""
    return tmp_path / "database.db"
