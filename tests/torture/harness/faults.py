"""The modes of faults.c, errors to inject, and code that makes runs commit after each item."""

import errno

COUNT, ONCE, ALWAYS, KILL, TORN, MOVE = range(6)
"""Modes, as in faults.c."""
ERRORS = {
    "no space left": (ALWAYS, errno.ENOSPC),
    "quota exceeded": (ALWAYS, errno.EDQUOT),
    "input/output error, once": (ONCE, errno.EIO),
    "input/output errors": (ALWAYS, errno.EIO),
    "permission denied": (ONCE, errno.EACCES),
    "not permitted": (ALWAYS, errno.EPERM),
    "read-only from now on": (ALWAYS, errno.EROFS),
}
"""Mode and errno by name."""
DEATHS = {"killed before it": KILL, "killed half-way through it": TORN}
"""Mode by name."""
COMMIT_EACH_ITEM = """
import lgbatch.workspace.stage
assert lgbatch.workspace.stage.COMMIT_SECONDS
lgbatch.workspace.stage.COMMIT_SECONDS = -1
"""
"""A preamble: the faults then hit every step of a commit, between items too."""
