"""What can go wrong as a whole.

LgbatchError              one line for the user: the reason, and the way out; exit status 2
├── InputError            the photos, the pairs file or an option cannot be used
├── ModelError            a model or its weights are missing, damaged, or made for something else
├── StoreError            features.h5 or matches.h5 cannot be read, written, or does not fit this run
├── DatabaseError         the COLMAP database cannot be written, or holds something else
├── ReconstructionError   verification or mapping could not run
└── WorkspaceError        the workspace is in use, or cannot be written

A single bad photo or pair raises ItemError inside its stage, is counted there, and never ends a run.
"""


class LgbatchError(Exception):
    """Ends a command. The message is one line: what is wrong, and what to do about it."""


class InputError(LgbatchError):
    """The photos, the pairs file or an option cannot be used."""


class ModelError(LgbatchError):
    """A model or its weights are missing, damaged, or made for something else."""


class StoreError(LgbatchError):
    """A store cannot be read or written, or was made with other settings."""


class DatabaseError(LgbatchError):
    """The COLMAP database cannot be written, or holds something that does not fit."""


class ReconstructionError(LgbatchError):
    """Geometric verification or mapping could not run."""


class WorkspaceError(LgbatchError):
    """Another command works in the workspace, or it cannot be read or written."""


class ItemError(Exception):
    """One photo or pair cannot be used. The stage counts it and goes on."""
