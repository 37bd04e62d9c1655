"""Exceptions.

LgbatchError              one line for the user: the reason and the way out; exit status 2
├── InputError            the photos, the pairs file or an option is invalid
├── ModelError            a model or its weights are missing, damaged or incompatible
├── StoreError            features.h5 or matches.h5 cannot be read or written, or does not fit the run
├── DatabaseError         the COLMAP database cannot be written, or its content does not fit the run
├── ReconstructionError   geometric verification or mapping failed
└── WorkspaceError        the workspace is in use, or cannot be read or written

A bad photo or pair raises ItemError inside its stage. The stage records the failure and goes on.
"""


class LgbatchError(Exception):
    """Ends a command. The message is one line: the reason and the way out."""


class InputError(LgbatchError):
    """The photos, the pairs file or an option is invalid."""


class ModelError(LgbatchError):
    """A model or its weights are missing, damaged or incompatible."""


class StoreError(LgbatchError):
    """A store cannot be read or written, or does not fit the run."""


class DatabaseError(LgbatchError):
    """The COLMAP database cannot be written, or its content does not fit the run."""


class ReconstructionError(LgbatchError):
    """Geometric verification or mapping failed."""


class WorkspaceError(LgbatchError):
    """The workspace is in use by another command, or cannot be read or written."""


class ItemError(Exception):
    """A photo or pair is unusable. The stage records the failure and goes on."""


class OutOfMemory(ItemError, MemoryError):
    """The memory that is available now is too small for a photo. The next run tries the photo again."""
