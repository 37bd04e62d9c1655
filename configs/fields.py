"""A setting as a field of a dataclass, with what the options, staleness and provenance are derived from."""

from dataclasses import Field, dataclass, field
from typing import Any, Literal

Effect = Literal["items", "stage", "none"]
"""What a setting changes. "items": every item that a stage writes; provenance records the setting. "stage": which items
the stage writes, or its result as a whole. "none": only how the work is done."""


@dataclass(frozen=True)
class Meta:
    """Metadata of a setting. Options, staleness and provenance are derived from it."""

    help: str
    users: tuple[str, ...]
    """The stages, and the commands besides stages, that read the setting."""
    effect: Effect
    group: str
    """Heading of the setting in the help of a command."""
    low: float | None
    high: float | None
    """Inclusive limits; None if there is none."""
    only_with: tuple[str, Any] | None
    """Another setting and its value without which this one has no effect; None if it always has."""


COMMON, MATCHING, CAMERAS, RERUNS, MACHINE = "Options", "Matching", "Cameras and mapping", "Reruns", "This machine"


def setting(
    default: Any,
    help: str,
    users: tuple[str, ...],
    effect: Effect,
    group: str = COMMON,
    *,
    low: float | None = None,
    high: float | None = None,
    only_with: tuple[str, Any] | None = None,
) -> Any:
    """Return a field of Settings with its default and metadata."""
    return field(default=default, metadata={"meta": Meta(help, users, effect, group, low, high, only_with)})


def meta(f: Field[Any]) -> Meta:
    """Return the metadata of a field of Settings."""
    metadata: Meta = f.metadata["meta"]
    return metadata
