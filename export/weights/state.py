"""Loads PyTorch checkpoints as state dicts with uniform names."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from lgbatch.errors import ModelError
from lgbatch.runtime.packages import installation_command

if TYPE_CHECKING:
    import torch


def load_state(path: Path) -> "dict[str, torch.Tensor]":
    """Load the state dict of a PyTorch checkpoint, with tensors on the CPU. Code in the file is not executed.

    A state dict that is the only entry of the checkpoint is unwrapped (DISK's is under "extractor"). The names
    transformers.<i>.self_attn and .cross_attn of later LightGlue checkpoints become self_attn.<i> and cross_attn.<i>,
    as in earlier ones. If there are names with the prefix "matcher." (LighterGlue), only those are kept, without it.
    Raises ModelError if PyTorch is not installed or the file is not such a checkpoint.
    """
    try:
        import torch
    except ImportError:
        raise ModelError(f"export needs torch: run `{installation_command()}`") from None
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # the unpickler raises all kinds of exceptions
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
