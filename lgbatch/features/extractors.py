"""Photos -> features store: decoded in threads ahead of the model, extracted in batches of equal shape."""

from pathlib import Path

from lgbatch.config import Settings
from lgbatch.features.network import Extractor
from lgbatch.features.sift import SiftExtractor


def open_feature_extractor(models: Path, settings: Settings) -> Extractor | SiftExtractor:
    """What extracts the features that the settings name. Raises ModelError as models.open_extractor."""
    return SiftExtractor(settings) if settings.extractor == "sift" else Extractor(models, settings)
