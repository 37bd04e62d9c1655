"""A setting as a field of a dataclass, with what the options, staleness and provenance are derived from."""

from collections.abc import Iterable, Mapping
from dataclasses import Field, dataclass, field
from types import MappingProxyType
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
    """Another setting and its value without which this one has no effect; None if it always has.

    A tuple of values stands for any of them, and if the other setting joins words, for any that it holds."""
    words: tuple[str, ...]
    """Words that the text of the setting joins with '+'; none if the setting is not such a text."""
    help_for: Mapping[str, str]
    """By stage, the help in commands that read the setting for this stage alone, if it is another one."""

    def help_in(self, users: Iterable[str]) -> str:
        """Return the help in a command with these `users`."""
        (stage, *others) = {*self.users}.intersection(users) or {""}
        return self.help if others else self.help_for.get(stage, self.help)


COMMON, PAIRS, MATCHING, CAMERAS, RERUNS, MACHINE = (
    "Options",
    "Pairs",
    "Matching",
    "Cameras and mapping",
    "Reruns",
    "This machine",
)


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
    words: tuple[str, ...] = (),
    help_for: Mapping[str, str] = MappingProxyType({}),
) -> Any:
    """Return a field of Settings with its default and metadata."""
    about = Meta(help, users, effect, group, low, high, only_with, words, help_for)
    return field(default=default, metadata={"meta": about})


def has_effect(m: Meta, other: Any) -> bool:
    """Whether a setting has an effect with this value of the setting that its `only_with` names."""
    needed = m.only_with[1] if m.only_with else other
    if isinstance(needed, tuple):
        return not {*needed}.isdisjoint(other.split("+"))
    return bool(other == needed)


def meta(f: Field[Any]) -> Meta:
    """Return the metadata of a field of Settings."""
    metadata: Meta = f.metadata["meta"]
    return metadata
