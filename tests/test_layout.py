"""The layout that docs/architecture.md promises: small packages of small files, and short functions."""

import ast
import os
from collections import Counter
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
FOLDERS = ("lgbatch", "export", "pipelines", "tests", "docs")
MOST_FILES, MOST_LINES, MEDIAN_LINES = 12, 300, 10


def sources(*suffixes: str) -> list[Path]:
    """The source files of the repository, each once: links to folders are not followed."""
    return [
        Path(folder) / name
        for top in FOLDERS
        for folder, _, names in os.walk(ROOT / top)
        for name in names
        if name.endswith(suffixes)
    ]


def test_no_package_has_more_than_twelve_files() -> None:
    count = Counter(path.parent for path in sources(".py", ".c", ".h"))
    assert not {str(folder): files for folder, files in count.items() if files > MOST_FILES}


def test_no_file_has_more_than_three_hundred_lines() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in sources(".py", ".c", ".h")}
    assert not {str(path): lines for path, lines in lengths.items() if lines > MOST_LINES}


def test_the_median_function_has_at_most_ten_lines() -> None:
    lengths = [
        node.end_lineno - node.lineno + 1
        for path in sources(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
    ]
    assert median(lengths) <= MEDIAN_LINES
