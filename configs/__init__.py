"""Files of settings: presets, which lie beside this module, and TOML files of the user."""

import tomllib
from importlib import resources
from pathlib import Path
from typing import Any


def preset(name: str) -> Path:
    """Return the path of a preset of the package, or `name` itself if it ends in .toml.

    Raises ValueError if there is no such preset.
    """
    if Path(name).suffix == ".toml":
        return Path(name)
    folder = resources.files("lgbatch.configs")
    path = Path(str(folder / f"{name}.toml"))
    if not path.is_file():
        known = sorted(p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml"))
        raise ValueError(f"no preset '{name}': give a .toml file or one of {', '.join(known)}")
    return path


def read_toml(path: Path) -> dict[str, Any]:
    """Return the keys and values of a TOML file. Raises ValueError if it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read settings from {path}: {error.strerror}; give a TOML file or a preset") from None
    except UnicodeDecodeError:
        raise ValueError(f"cannot read settings from {path}: it is not UTF-8 text; save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not valid TOML: {error}; write lines such as: max_keypoints = 1024") from None
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, deeply nested lists
        raise ValueError(f"cannot read settings from {path}: {error}; write short numbers and plain values") from None
