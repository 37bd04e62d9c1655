"""Write the reference of the public names into docs/api.md, from their docstrings: `make api`."""

import inspect
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

import lgbatch
from lgbatch.configs.fields import meta

PAGE = Path(__file__).with_name("api.md")
BEGIN, END = "<!-- reference: written by `make api` -->\n", "<!-- end of reference -->\n"
SECTIONS = {
    "A run and its steps": ("api.run", "api.steps", "api.matching", "api.mapping"),
    "Finished models": ("api.models",),
    "Matching in memory": ("api.matcher", "pipelines.infer", "matching.lightglue", "matching.runner"),
    "Progress": ("workspace.progress",),
    "Settings": ("config",),
    "Features and matches": ("types", "storage.features", "storage.matches"),
    "Results": (
        "pipelines.summary",
        "pipelines.pairs.estimate",
        "reconstruction.results",
        "reconstruction.evaluation.run",
        "reconstruction.evaluation.evaluate",
        "reconstruction.georeference.results",
        "reconstruction.known_poses.results",
        "pipelines.localization.results",
        "report.make",
        "interchange.undistort",
        "interchange.stores",
        "interchange.view",
    ),
    "Errors": ("errors",),
}
"""The headings of the page, and the modules whose names they have."""
WRITERS = ("add_", "timed")
"""The beginnings of the names of methods by which the stages fill a summary."""
READING = {
    "FeatureStore": ("names", "__contains__", "read", "keypoints", "image_size", "orientation", "image_folder"),
    "MatchStore": ("pairs", "__contains__", "read"),
}
"""The members of the stores for programs that read them. The others are for the stages."""


OPEN = "Open a file for reading, best in a `with` statement. Raises StoreError if it is missing, damaged or in use."


def reference() -> str:
    """All public names as Markdown, by section."""
    assert set(lgbatch._MODULES) == {module for modules in SECTIONS.values() for module in modules}
    lines: list[str] = []
    for title, modules in SECTIONS.items():
        lines += [f"## {title}", ""]
        for name in (name for module in modules for name in lgbatch._MODULES[module]):
            lines += _describe(name, getattr(lgbatch, name))
    return "\n".join(lines)


def _describe(name: str, item: Any) -> list[str]:
    if isinstance(item, FunctionType):
        return [f"### {name}", "", *_signature(name, item), *_text(item)]
    lines = [f"### {name}", "", *_text(item)]
    if name == "Settings":
        return [*lines, *_settings(item)]
    if is_dataclass(item) or hasattr(item, "_fields"):
        return [*lines, *_fields(item), *_members(name, item)]
    if name in READING:
        lines += ["```", f"{name}(path: Path)", "```", "", OPEN, ""]
    elif "__init__" in vars(item):
        lines += [*_signature(name, item.__init__), *_text(item.__init__)]
    return [*lines, *_members(name, item)]


def _members(name: str, item: type) -> list[str]:
    """The public methods and properties of a class."""
    lines = []
    for member, value in vars(item).items():
        if member not in READING[name] if name in READING else member.startswith("_"):
            continue
        if isinstance(value, property):
            lines += [f"#### {name}.{member}", "", *_text(value)]
        elif isinstance(value, FunctionType) and value.__doc__ and not member.startswith(WRITERS):
            lines += [f"#### {name}.{member}", "", *_signature(member, value), *_text(value)]
    return lines


def _signature(name: str, function: Any) -> list[str]:
    """The signature in a block of code, one parameter a line if it is long."""
    signature = inspect.signature(function)
    parameters = [parameter for parameter in signature.parameters.values() if parameter.name != "self"]
    short = str(signature.replace(parameters=parameters))
    returns = short[short.rindex(")") + 1 :] if "->" in short and not name[0].isupper() else ""
    text = f"{name}({', '.join(_listed(parameters))}){returns}"
    if len(text) > 100:
        text = "\n".join([f"{name}(", *(f"    {parameter}," for parameter in _listed(parameters)), f"){returns}"])
    return ["```", _plain(text), "```", ""]


def _listed(parameters: list[inspect.Parameter]) -> list[str]:
    """The parameters as in a definition, with the star before those that are given by name."""
    listed, by_name = [], False
    for parameter in parameters:
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not by_name:
            listed.append("*")
            by_name = True
        listed.append(str(parameter))
    return listed


def _plain(text: str) -> str:
    """Types as they are written in the code, without the names of modules."""
    text = re.sub(r"\b(?:[a-z_]\w*\.)+(?=[A-Za-z])", "", text).replace("'", '"')
    text = re.sub(r"ndarray\[.*?dtype\[(\w+)\]\]", r"NDArray[\1]", text)
    text = re.sub(r"Optional\[(.*\])\]", r"\1 | None", text)
    text = re.sub(r'-> "(\w+)"', r"-> \1", text)  # of a class that is imported late
    return text.replace("Iterator[None]", "ContextManager[None]")


def _text(item: Any) -> list[str]:
    text = inspect.getdoc(item)
    return [text, ""] if text else []


def _fields(item: type) -> list[str]:
    """The fields of a record with the comments on them, as a list."""
    comments = _comments(item)
    names = [f.name for f in fields(item)] if is_dataclass(item) else list(getattr(item, "_fields", ()))
    annotations = {name: annotation for cls in reversed(item.__mro__) for name, annotation in _annotations(cls).items()}
    lines = [
        f"- `{name}: {_plain(_type(annotations[name]))}`{'. ' + comments[name] if name in comments else ''}"
        for name in names
        if not name.startswith("_")
    ]
    return [*lines, ""]


def _annotations(cls: type) -> dict[str, Any]:
    return dict(vars(cls).get("__annotations__", {}))


def _type(annotation: Any) -> str:
    return (
        annotation.__name__ if isinstance(annotation, type) and not hasattr(annotation, "__args__") else str(annotation)
    )


def _comments(item: type) -> dict[str, str]:
    """The strings below the fields of a class in its source."""
    found = re.findall(r'^    (\w+): [^\n]*\n    """(.*?)"""', inspect.getsource(item), re.MULTILINE | re.DOTALL)
    return {name: " ".join(text.split()) for name, text in found}


def _settings(item: Any) -> list[str]:
    """The settings in a table, with the help of the command line."""
    lines = ["| setting | default | meaning |", "|---|---|---|"]
    for f in fields(item):
        lines.append(f"| `{f.name}` | `{f.default!r}` | {meta(f).help} |")
    return [*lines, ""]


def page(text: str) -> str:
    """The page with the reference as it is now."""
    head, rest = text.split(BEGIN)
    tail = rest.split(END)[1]
    return head + BEGIN + reference() + END + tail


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
