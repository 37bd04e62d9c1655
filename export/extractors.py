"""The extractors, their weights files, and the kinds of models exported for each."""

from lgbatch.runtime.registry import FP32_ONLY, KERNEL_EXTRACTORS, Kind, family

EXTRACTORS = {
    "disk": {"extractor": "disk-depth-save.pth", "matcher": "disk_lightglue.pth"},
    "aliked-n16": {"extractor": "aliked-n16.pth", "matcher": "aliked_lightglue.pth"},
    "aliked-n16rot": {"extractor": "aliked-n16rot.pth", "matcher": "aliked_lightglue.pth"},
    "aliked-n32": {"extractor": "aliked-n32.pth", "matcher": "aliked_lightglue.pth"},
    "aliked-t16": {"extractor": "aliked-t16.pth"},
    "superpoint": {"extractor": "superpoint_v1.pth", "matcher": "superpoint_lightglue.pth"},
    "xfeat": {"extractor": "xfeat.pt", "matcher": "xfeat-lighterglue.pt"},
    "sift": {"matcher": "sift_lightglue.pth"},
}
"""Weights file of each extractor and of its LightGlue, by role.

No LightGlue is published for aliked-t16. SIFT is not a network and has no extractor model. The modules in
lgbatch.export.networks and the functions in lgbatch.export.reference are named after the family (see registry.family).
"""
KINDS: tuple[Kind, ...] = ("extractor", "extractor-kernels", "stages", "stages-fp16", "stages-int8", "matcher")
"""All kinds of models. lgbatch runs the extractor and the stages; the single-graph matcher is for other programs."""


def role(kind: Kind) -> str:
    """Return the role, a key of EXTRACTORS' values, whose weights a kind of model is exported from."""
    return "extractor" if kind.startswith("extractor") else "matcher"


def exported_kinds(extractor: str) -> tuple[Kind, ...]:
    """Return the kinds of models that exist for an extractor."""
    excluded = {"stages-fp16", "stages-int8"} if family(extractor) in FP32_ONLY else set()
    if family(extractor) not in KERNEL_EXTRACTORS:
        excluded.add("extractor-kernels")
    return tuple(kind for kind in KINDS if kind not in excluded and role(kind) in EXTRACTORS[extractor])
