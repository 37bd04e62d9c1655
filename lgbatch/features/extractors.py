"""Opens the feature extractor that the settings name."""

from pathlib import Path

from lgbatch.config import Settings
from lgbatch.features.network import Extractor
from lgbatch.features.sift import SiftExtractor


def open_feature_extractor(models: Path, settings: Settings) -> Extractor | SiftExtractor:
    """Open the extractor settings.extractor. Raises ModelError as models.open_extractor."""
    return SiftExtractor(settings) if settings.extractor == "sift" else Extractor(models, settings)
