"""The page of a report: one HTML file that asks no other place for anything.

Its policy (Content-Security-Policy) allows the scripts and styles of the file, by their hashes, and pictures in data
URLs; nothing else, and no connection. Texts reach the page through Jinja's escaping or as JSON without '<'.
"""

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from lgbatch.report.facts import Report, headline, workspace_name
from lgbatch.report.models import quantise, shown_points
from lgbatch.report.pairs import STEPS, Drawn
from lgbatch.storage.provenance import format_provenance
from lgbatch.types import counted, escape

_SCRIPTS = ("base", "dialogs", "photos", "matrix", "graph", "model", "main")
_COMMAND = re.compile(r"`([^`]+)`")
_UNSAFE = {ord(character): f"\\u{ord(character):04x}" for character in "<>&"}


def render(report: Report, drawn: Drawn, thumbnails: Sequence[bytes]) -> bytes:
    """Return the page as UTF-8. `thumbnails` are WebP pictures, empty for photos that have none."""
    arrays = Arrays()
    views = _pack_models(report, arrays)
    _pack_pairs(report, drawn, arrays)
    shown = _shown(report.facts)
    data = shown | {
        "views": views,
        "arrays": arrays.layout,
        "steps": STEPS,
        "graph": shown["graph"] | {"height": report.graph.height, "component": report.graph.component.tolist()},
    }
    scripts = [_asset("three", "three.min.js"), "\n".join(_asset("assets", f"{name}.js") for name in _SCRIPTS)]
    style = _asset("assets", "report.css")
    text = (
        _environment()
        .get_template("report.html")
        .render(
            facts=shown,
            title=escape(workspace_name(report.facts)),
            headline=escape(headline(report.facts)),
            policy=_policy(scripts, [style]),
            style=Markup(style),
            scripts=[Markup(script) for script in scripts],
            data=Markup(_as_json(data)),
            thumbnails=Markup(_as_json([base64.b64encode(picture).decode() for picture in thumbnails])),
            arrays=Markup(arrays.encoded()),
        )
    )
    return text.encode()


@dataclass
class Arrays:
    """Arrays of numbers in one compressed block. `layout` tells type, offset in bytes and length of each."""

    layout: dict[str, Any] = field(default_factory=dict)
    _parts: list[bytes] = field(default_factory=list)
    _size: int = 0

    def add(self, name: str, values: NDArray[Any]) -> None:
        """Add an array of 8, 16 or 32 bits, unsigned or float. It starts at a multiple of 4 bytes."""
        raw = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
        self.layout[name] = {"type": values.dtype.name, "offset": self._size, "length": values.size}
        self._parts.append(raw + b"\0" * (-len(raw) % 4))
        self._size += len(self._parts[-1])

    def encoded(self) -> str:
        """The block, deflated without a header, in base64."""
        compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
        return base64.b64encode(compressor.compress(b"".join(self._parts)) + compressor.flush()).decode()


def _pack_pairs(report: Report, drawn: Drawn, arrays: Arrays) -> None:
    """Pairs are in ascending order: the differences of their photos compress to almost nothing."""
    table = report.table
    for end, name in enumerate(("pair_a", "pair_b")):
        arrays.add(name, np.diff(table.ids[:, end], prepend=0).astype(np.uint32))
    arrays.add("matches", np.minimum(table.matches, 65535).astype(np.uint16))
    arrays.add("inliers", np.minimum(table.inliers, 65535).astype(np.uint16))
    arrays.add("drawn", drawn.pairs.astype(np.uint32))
    arrays.add("drawn_counts", drawn.counts.astype(np.uint16))
    arrays.add("positions", drawn.positions.T)
    arrays.add("layout", np.nan_to_num(report.graph.positions, nan=-1).astype(np.float32))


def _pack_models(report: Report, arrays: Arrays) -> list[dict[str, Any]]:
    """The points of the models as arrays; returns what the page needs besides: scale and cameras."""
    views = []
    for number, (model, shown) in enumerate(zip(report.models, shown_points(report.models), strict=True)):
        cloud = quantise(model, shown)
        arrays.add(f"xyz{number}", cloud.xyz)
        arrays.add(f"colors{number}", cloud.colors)
        views.append({"low": cloud.low, "step": cloud.step, "shown": len(cloud.xyz), "cameras": model.cameras})
    return views


def _shown(value: Any) -> Any:
    """Values for people: unprintable characters, invalid ones and those that turn the text around become escapes."""
    if isinstance(value, str):
        return "\n".join(map(escape, value.split("\n")))
    if isinstance(value, dict):
        return {_shown(key): _shown(item) for key, item in value.items()}
    return [_shown(item) for item in value] if isinstance(value, list | tuple) else value


def _as_json(value: Any) -> str:
    """JSON in ASCII that no HTML parser takes for a tag, whatever the names of the photos are."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).translate(_UNSAFE)


def _policy(scripts: Sequence[str], styles: Sequence[str]) -> str:
    allowed = {"script-src": scripts, "style-src": styles}
    hashes = {kind: " ".join(map(_hash, texts)) for kind, texts in allowed.items()}
    rules = [f"{kind} {values}" for kind, values in hashes.items()]
    return "; ".join(["default-src 'none'", *rules, "img-src data:", "base-uri 'none'", "form-action 'none'"])


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _asset(folder: str, name: str) -> str:
    return (resources.files("lgbatch.report") / folder / name).read_text(encoding="utf-8")


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lgbatch.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "commands": _commands,
        "counted": counted,
        "number": lambda value: f"{value:,}",
        "provenance": lambda by: format_provenance(by) if by else "unknown",
    }
    return environment


def _commands(text: str) -> Markup:
    """The text with each command between backticks in a box of its own, with a button that copies it."""
    parts = _COMMAND.split(text[:1].upper() + text[1:])
    parts[2::2] = [part.lstrip(",;: ") for part in parts[2::2]]
    box = Markup('<span class="command"><code>{}</code><button type="button" class="copy">Copy</button></span>')
    return Markup("").join(box.format(part) if i % 2 else part for i, part in enumerate(parts))
