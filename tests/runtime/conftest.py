"""State of a process that each test starts without."""

from collections.abc import Iterator

import pytest

from lgbatch.runtime import devices
from lgbatch.runtime.packages import runtime_conflict


@pytest.fixture(autouse=True)
def fresh_devices() -> Iterator[None]:
    """Forget the devices that are available or have failed, and the warnings that were printed."""
    missing_part = devices._missing_part

    def forget() -> None:
        missing_part.cache_clear()
        devices._warn.cache_clear()
        devices._NOT_STARTED.clear()
        runtime_conflict.cache_clear()

    forget()
    yield
    forget()
