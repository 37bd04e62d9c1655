"""README and docs: each command and Python example that they show runs, on the demo's photos."""

import importlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

import lgbatch

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PHOTOS = 5
FENCE = re.compile(r"^```(sh|python)( slow)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Example:
    """A command line or a Python program of a page."""

    page: str
    language: str
    slow: bool
    text: str

    @property
    def runs(self) -> bool:
        """Whether the example is a command of lgbatch or a program, which a workspace is needed for."""
        return self.language == "python" or self.text.startswith("lgbatch ")


def examples(page: Path) -> list[Example]:
    found = []
    for language, slow, body in FENCE.findall(page.read_text(encoding="utf-8")):
        lines = [line.partition("#")[0].strip() for line in body.splitlines()]
        texts = [line for line in lines if line] if language == "sh" else [body]
        found += [Example(page.name, language, bool(slow), text) for text in texts]
    return found


EXAMPLES = [example for page in PAGES for example in examples(page)]


@pytest.fixture(scope="session")
def project(models: Path, gallery: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the photos that the examples name, and a finished workspace."""
    folder = tmp_path_factory.mktemp("project")
    photos = sorted(gallery.glob("*.jpg"))[:PHOTOS]
    (folder / "photos").mkdir()
    for photo in photos:
        shutil.copy(photo, folder / "photos")
    for name, photo in zip(("a.jpg", "b.jpg"), photos, strict=False):
        shutil.copy(photo, folder / name)
    run("lgbatch run photos/ -o out/", folder)
    return folder


def run(command: str, folder: Path) -> None:
    """Run a command line in the shell, with this environment's programs first."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: exit status {done.returncode}\n{done.stdout}{done.stderr}"


@pytest.mark.weights
@pytest.mark.parametrize("page", [page.name for page in PAGES if any(e.runs for e in examples(page))])
@pytest.mark.parametrize("slow", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["quick", "slow"])
def test_the_examples_of_a_page_run_from_top_to_bottom(project: Path, page: str, slow: bool) -> None:
    chosen = [e for e in EXAMPLES if e.page == page and e.runs and e.slow == slow]
    for example in chosen:
        if example.language == "python":
            (project / "example.py").write_text(example.text, encoding="utf-8")
            run("python example.py", project)
        else:
            run(example.text, project)


@pytest.mark.parametrize("example", [e for e in EXAMPLES if not e.runs], ids=lambda e: f"{e.page}: {e.text}")
def test_other_commands_name_targets_and_extras_that_exist(example: Example) -> None:
    program, *arguments = example.text.split()
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert arguments[0] in targets
    else:
        assert example.text.startswith("pip install 'lgbatch[")
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert set(re.findall(r"\[(.*)\]", example.text)[0].split(",")) <= extras.keys()


def headings(page: Path) -> set[str]:
    """The names that GitHub gives the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_readme_is_short_and_links_to_pages_that_exist() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= 9000
    for page in PAGES:
        for link in re.findall(r"\]\(([^)]*)\)", page.read_text(encoding="utf-8")):
            if "://" not in link:
                file, _, heading = link.partition("#")
                assert (page.parent / file).exists(), f"{page.name}: {link}"
                assert not heading or heading in headings(page.parent / file), f"{page.name}: {link}"


def script(name: str) -> ModuleType:
    """The script of this name that writes a part of a page."""
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


def test_each_row_of_the_comparison_tells_what_shows_it() -> None:
    text = (ROOT / "docs" / "comparison.md").read_text(encoding="utf-8")
    rows = [
        line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ") and "hloc |" not in line
    ]
    assert len(rows) > 40
    for row in rows:
        *_, own, shown = row
        assert len(row) == 8 and re.match(r"(yes|part|no)\b", own), row
        assert shown.startswith("[") or (own, shown) == ("no", "-"), row


def test_the_import_levels_are_up_to_date() -> None:
    architecture = script("architecture")
    text = architecture.PAGE.read_text(encoding="utf-8")
    assert architecture.page(text) == text, "run `make architecture`"
    assert len(architecture.levels(architecture.imports())) <= 8


def test_the_reference_of_the_python_api_is_up_to_date_and_has_each_name() -> None:
    api = script("api")
    text = api.PAGE.read_text(encoding="utf-8")
    assert api.page(text) == text, "run `make api`"
    named = set(re.findall(r"^### (\w+)$", text, re.MULTILINE))
    assert named == set(lgbatch.__all__) - {"__version__"}


def test_examples_of_the_python_api_use_public_names_alone() -> None:
    programs = [example.text for example in EXAMPLES if example.page == "api.md"]
    used = {name for text in programs for name in re.findall(r"\blgbatch\.(\w+)", text)}
    assert used and used <= set(lgbatch.__all__)
    assert not re.search(r"^from lgbatch", "".join(programs), re.MULTILINE)
