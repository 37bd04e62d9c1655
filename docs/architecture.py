"""Write the import levels of the packages into docs/architecture.md: `make architecture`.

The level of a package is one more than the highest level that it imports; packages that import none are on level 1.
"""

from functools import cache
from pathlib import Path

import grimp

PAGE = Path(__file__).with_name("architecture.md")
BEGIN, END = "<!-- levels: written by `make architecture` -->\n", "<!-- end of levels -->\n"
ROOT = "lgbatch"


def imports() -> dict[str, set[str]]:
    """The packages and modules below lgbatch, and those that each imports."""
    graph = grimp.build_graph(ROOT, cache_dir=None)
    rooms: dict[str, set[str]] = {}
    for module in graph.modules - {ROOT, f"{ROOT}.__main__"}:
        room = module.split(".")[1]
        found = {name.split(".")[1] for name in graph.find_modules_directly_imported_by(module) if "." in name}
        rooms.setdefault(room, set()).update(found - {room})
    return rooms


def levels(rooms: dict[str, set[str]]) -> list[list[str]]:
    """The packages by level, lowest first. Raises RecursionError on a circle."""

    @cache
    def level(room: str) -> int:
        return 1 + max(map(level, rooms[room]), default=0)

    found: dict[int, list[str]] = {}
    for room in sorted(rooms):
        found.setdefault(level(room), []).append(room)
    return [found[number] for number in sorted(found)]


def table(rooms: dict[str, set[str]]) -> str:
    """The levels as Markdown, highest first."""
    rows = [
        f"| {number} | {room} | {', '.join(sorted(rooms[room])) or 'nothing'} |"
        for number, names in reversed(list(enumerate(levels(rooms), 1)))
        for room in names
    ]
    return "\n".join(["| level | package | imports |", "|---|---|---|", *rows, ""])


def page(text: str) -> str:
    """The page with the levels as they are now."""
    head, rest = text.split(BEGIN)
    tail = rest.split(END)[1]
    return head + BEGIN + table(imports()) + END + tail


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
