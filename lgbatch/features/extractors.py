"""Opens the feature extractor that the settings name."""

from collections.abc import Callable
from pathlib import Path

from lgbatch.config import Settings
from lgbatch.features.network import Extractor
from lgbatch.features.sift import SiftExtractor

OpenExtractor = Callable[[Path, Settings, int], Extractor | SiftExtractor]
"""Opens an extractor, given the folder of its model, the settings, and how many photos a CPU extracts at once."""


def open_feature_extractor(models: Path, settings: Settings, at_once: int = 1) -> Extractor | SiftExtractor:
    """Open the extractor settings.extractor; see OpenExtractor. Raises ModelError as models.open_extractor."""
    if settings.extractor == "sift":
        return SiftExtractor(settings, at_once)
    return Extractor(models, settings, at_once)
