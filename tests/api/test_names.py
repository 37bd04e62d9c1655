"""The public names: what `import lgbatch` costs, that each is there, typed as it is, and described in docs/api.md."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lgbatch

ROOT = Path(__file__).parents[2]
HEAVY = ("numpy", "onnxruntime", "cv2", "h5py", "pycolmap", "tqdm", "typer", "torch")
MEASURE = """
import sys, time
start = time.process_time()
import lgbatch
print(time.process_time() - start, *sorted(set(sys.argv[1:]) & set(sys.modules)))
assert "BatchMatcher" in dir(lgbatch)
"""


def test_importing_lgbatch_is_fast_and_imports_no_library() -> None:
    done = [
        subprocess.run([sys.executable, "-c", MEASURE, *HEAVY], capture_output=True, text=True, check=True).stdout
        for _ in range(3)
    ]
    seconds, imported = zip(*(line.strip().partition(" ")[::2] for line in done), strict=True)
    assert set(imported) == {""}
    assert min(map(float, seconds)) < 0.05


def test_each_name_is_that_of_the_type_checkers() -> None:
    tree = ast.parse((ROOT / "lgbatch" / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {
        alias.asname or alias.name: (line.module, alias.name)
        for line in block.body
        if isinstance(line, ast.ImportFrom)
        for alias in line.names
    }
    assert typed.keys() == set(lgbatch.__all__) - {"__version__"} == lgbatch._MODULE_OF.keys()
    for name, (module, own) in typed.items():
        assert getattr(lgbatch, name) is getattr(sys.modules[str(module)], own)
        assert f"lgbatch.{lgbatch._MODULE_OF[name]}" == module


def test_names_that_are_not_public_are_refused() -> None:
    with pytest.raises(AttributeError, match="module 'lgbatch' has no attribute 'nothing'"):
        _ = lgbatch.nothing


def test_public_functions_are_typed_and_say_what_they_raise() -> None:
    for name in set(lgbatch.__all__) - {"__version__"}:
        item = getattr(lgbatch, name)
        text = inspect.getdoc(item)
        assert text, name
        if inspect.isfunction(item):
            signature = inspect.signature(item)
            annotations = [parameter.annotation for parameter in signature.parameters.values()]
            assert inspect.Signature.empty not in (*annotations, signature.return_annotation), name
            if name not in ("report_progress", "rgb_to_grayscale"):
                assert re.search(r"\bRaises\b|\braises\b", text), name
