"""The import of pycolmap, and its log on standard error, switched off while lgbatch calls it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from lgbatch.workspace.signals import reinstall_handlers


def import_pycolmap() -> None:
    """Import pycolmap: a broken installation is better found now than after an hour of matching."""
    import pycolmap  # noqa: F401

    reinstall_handlers()


@contextmanager
def colmap_log_off() -> Iterator[None]:
    """Silence COLMAP's log inside the block, unless the logger `lgbatch` is at DEBUG. Restores the level afterwards."""
    import pycolmap

    reinstall_handlers()
    level = pycolmap.logging.minloglevel
    if not logging.getLogger("lgbatch").isEnabledFor(logging.DEBUG):
        pycolmap.logging.minloglevel = int(pycolmap.logging.FATAL)
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = level
