"""lgbatch: photos to a COLMAP model with learned features, batched on ONNX Runtime.

The names below are the public ones: docs/api.md describes each. They are imported on first use (PEP 562).
"""

import importlib
import os
from typing import TYPE_CHECKING

from lgbatch._version import __version__

if TYPE_CHECKING:
    from lgbatch.api.mapping import reconstruct, refine, write_refined_database
    from lgbatch.api.matcher import BatchMatcher
    from lgbatch.api.matching import import_matches, match
    from lgbatch.api.models import convert, evaluate, georeference, localize, triangulate, undistort, view
    from lgbatch.api.run import run, write_report
    from lgbatch.api.steps import estimate_pairs, extract, pairs
    from lgbatch.config import Settings
    from lgbatch.errors import (
        DatabaseError,
        InputError,
        ItemError,
        LgbatchError,
        ModelError,
        ReconstructionError,
        StoreError,
        WorkspaceError,
    )
    from lgbatch.interchange.stores import Converted
    from lgbatch.interchange.undistort import Undistorted
    from lgbatch.interchange.view import Viewed
    from lgbatch.matching.lightglue import MatchTrace
    from lgbatch.matching.runner import LightGlueRunner, load_image, rgb_to_grayscale
    from lgbatch.pipelines.infer import InferResult
    from lgbatch.pipelines.infer import run as infer
    from lgbatch.pipelines.localization.results import Localization, Localized
    from lgbatch.pipelines.pairs.estimate import Estimate
    from lgbatch.pipelines.summary import Summary
    from lgbatch.reconstruction.evaluation.evaluate import Accuracy
    from lgbatch.reconstruction.evaluation.run import Evaluation
    from lgbatch.reconstruction.georeference.results import Georeferenced, GeoreferencedModel
    from lgbatch.reconstruction.known_poses.results import Triangulated
    from lgbatch.reconstruction.results import Doubtful, Model, Unregistered
    from lgbatch.report.make import WrittenReport
    from lgbatch.storage.features import FeatureStore
    from lgbatch.storage.matches import MatchStore
    from lgbatch.types import Failure, Features, Matches, Pair
    from lgbatch.workspace.progress import ProgressEvent, report_progress

_MODULES = {
    "api.run": ("run", "write_report"),
    "api.steps": ("extract", "pairs", "estimate_pairs"),
    "api.matching": ("match", "import_matches"),
    "api.mapping": ("reconstruct", "refine", "write_refined_database"),
    "api.models": ("evaluate", "georeference", "triangulate", "localize", "undistort", "convert", "view"),
    "pipelines.infer": ("infer", "InferResult"),
    "api.matcher": ("BatchMatcher",),
    "matching.lightglue": ("MatchTrace",),
    "matching.runner": ("LightGlueRunner", "load_image", "rgb_to_grayscale"),
    "workspace.progress": ("report_progress", "ProgressEvent"),
    "config": ("Settings",),
    "storage.features": ("FeatureStore",),
    "storage.matches": ("MatchStore",),
    "types": ("Features", "Matches", "Pair", "Failure"),
    "pipelines.summary": ("Summary",),
    "pipelines.pairs.estimate": ("Estimate",),
    "reconstruction.results": ("Model", "Unregistered", "Doubtful"),
    "reconstruction.evaluation.run": ("Evaluation",),
    "reconstruction.evaluation.evaluate": ("Accuracy",),
    "reconstruction.georeference.results": ("Georeferenced", "GeoreferencedModel"),
    "reconstruction.known_poses.results": ("Triangulated",),
    "pipelines.localization.results": ("Localization", "Localized"),
    "report.make": ("WrittenReport",),
    "interchange.undistort": ("Undistorted",),
    "interchange.view": ("Viewed",),
    "interchange.stores": ("Converted",),
    "errors": (
        "LgbatchError",
        "InputError",
        "ModelError",
        "StoreError",
        "DatabaseError",
        "ReconstructionError",
        "WorkspaceError",
        "ItemError",
    ),
}
"""The modules below lgbatch, and their public names."""
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}
_OWN_NAMES = {"infer": "run"}
"""Names that are others in their modules."""

__all__ = [
    "Accuracy",
    "BatchMatcher",
    "Converted",
    "DatabaseError",
    "Doubtful",
    "Estimate",
    "Evaluation",
    "Failure",
    "FeatureStore",
    "Features",
    "Georeferenced",
    "GeoreferencedModel",
    "InferResult",
    "InputError",
    "ItemError",
    "LgbatchError",
    "LightGlueRunner",
    "Localization",
    "Localized",
    "MatchStore",
    "MatchTrace",
    "Matches",
    "Model",
    "ModelError",
    "Pair",
    "ProgressEvent",
    "ReconstructionError",
    "Settings",
    "StoreError",
    "Summary",
    "Triangulated",
    "Undistorted",
    "Unregistered",
    "Viewed",
    "WorkspaceError",
    "WrittenReport",
    "__version__",
    "convert",
    "estimate_pairs",
    "evaluate",
    "extract",
    "georeference",
    "import_matches",
    "infer",
    "load_image",
    "localize",
    "match",
    "pairs",
    "reconstruct",
    "refine",
    "report_progress",
    "rgb_to_grayscale",
    "run",
    "triangulate",
    "undistort",
    "view",
    "write_refined_database",
    "write_report",
]

# ONNX Runtime 1.29 and later send telemetry unless this is set before the import (on Windows: see runtime/devices.py).
# A value of 0 opts in.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# NumPy's OpenBLAS has a thread for each core. When it is loaded, and after each product, they spin for 2**26 cycles
# unless this is set before the import: 25 ms of each core. 2**20 cycles (0.4 ms) are as fast (measured).
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "20")


def __getattr__(name: str) -> object:
    """Import a public name on first use, so that `import lgbatch` alone is fast."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_MODULE_OF[name]}")
    value = globals()[name] = getattr(module, _OWN_NAMES.get(name, name))
    return value


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
