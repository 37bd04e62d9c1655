"""Checks of the values of settings."""

from typing import Any, Literal, get_args, get_origin

_KINDS: dict[Any, str] = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def check(name: str, kind: Any, value: Any, low: float | None, high: float | None) -> None:
    """Raise ValueError unless `value` is of type `kind`, or one of a Literal's, and in the inclusive limits, if any."""
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}, not {_toml(value)}")
        return
    is_number = isinstance(value, int) or (kind is float and isinstance(value, float))
    is_of_type = type(value) is kind if kind in (bool, str) else is_number and not isinstance(value, bool)
    if not is_of_type:
        raise ValueError(f"{name} must be {_KINDS[kind]}, not {_toml(value)}")
    if not ((low is None or low <= value) and (high is None or value <= high)):  # written so that NaN is refused
        span = f"at least {low}" if high is None else f"in {low}..{high}"
        raise ValueError(f"{name} must be {span}, not {value}")


def check_words(name: str, value: str, words: tuple[str, ...]) -> None:
    """Raise ValueError unless `value` is one of the words, or several of them joined with '+'."""
    for word in value.split("+"):
        if word not in words:
            raise ValueError(f"{name} must be one of {', '.join(words)}, or several joined with +, not {_toml(value)}")


def _toml(value: Any) -> str:
    """Return a value as in TOML."""
    return str(value).lower() if isinstance(value, bool) else repr(value)
