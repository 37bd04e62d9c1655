"""The settings of a call of the Python API."""

from collections.abc import Mapping
from typing import Any

from lgbatch.config import Settings
from lgbatch.errors import InputError


def as_settings(settings: Settings | None, changes: Mapping[str, Any]) -> Settings:
    """The settings of a call: as given, or the defaults with changes. Raises InputError if it has both."""
    if settings is None:
        return Settings.load(**changes)
    if changes:
        raise InputError("pass either settings or single changes, not both")
    return settings
