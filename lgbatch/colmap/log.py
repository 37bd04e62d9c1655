"""COLMAP's library and its files: its log, its databases on disk, photos as it reads them, images as it stores them.

pycolmap is imported inside the functions: where it comes before zlib or numpy, its own symbols shadow theirs.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lgbatch.workspace.signals import renew

if TYPE_CHECKING:
    pass


@contextmanager
def colmap_log_off() -> Iterator[None]:
    """Keep COLMAP's own lines off standard error, unless the logger `lgbatch` is set to DEBUG."""
    import pycolmap

    renew()
    before = pycolmap.logging.minloglevel
    if not logging.getLogger("lgbatch").isEnabledFor(logging.DEBUG):
        pycolmap.logging.minloglevel = int(pycolmap.logging.FATAL)
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = before
