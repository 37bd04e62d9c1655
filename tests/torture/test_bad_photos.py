"""`lgbatch run` on folders with corrupt, unusual or badly named photos among good ones."""

import itertools
import shutil
from pathlib import Path

import pytest

from tests.torture.corpus.bad_photos import BAD, BAD_NAMES, FINE, GOOD_NAMES, PHOTO, AddFile, with_file
from tests.torture.harness import budget, contents
from tests.torture.harness.process import Done, Server

GOOD = 4
"""Photos of the fixture `photos`."""
NO_PHOTO = ("folder called photo", "link to its folder", "link to its parent")
READ, FAILED = (0, 1), (1,)
"""Exit statuses. A photo that is read may still have no place in the model."""
CASES: dict[str, tuple[AddFile, tuple[int, ...], str]] = {
    **{kind: (add, FAILED, "failed: bad.") for kind, add in BAD.items()},
    **{kind: (add, READ, "images      ") for kind, add in FINE.items()},
    **{f"name: {kind}": (with_file(name, PHOTO), READ, "images      5,") for kind, name in GOOD_NAMES.items()},
    **{f"name: {kind}": (with_file(name, PHOTO), FAILED, "rename the file") for kind, name in BAD_NAMES.items()},
    "name: same in hloc's layout": (with_file("day 1-b.bmp", PHOTO), READ, "images      5,"),
}
"""Kind: what to add, exit statuses, and a part of the message."""


def check(done: Done, statuses: tuple[int, ...], message: str) -> None:
    # Three lines: libpng itself prints about PNGs that are invalid in spite of valid checksums.
    assert done.problem(lines=3) is None, (done.problem(lines=3), done.err)
    output = done.out + done.err
    assert done.status in statuses, (done.status, output)
    assert message in output, (message, output)
    assert not any((ord(c) < 32 and c != "\n") or ord(c) == 127 for c in output), "a control character is printed"


@pytest.mark.slow
@pytest.mark.parametrize("kind", CASES)
def test_one_bad_photo_never_ends_a_run(
    kind: str, tmp_path: Path, server: Server, stand_ins: Path, photos: Path
) -> None:
    add, statuses, message = CASES[kind]
    folder, out = tmp_path / "photos", tmp_path / "out"
    shutil.copytree(photos, folder)
    add(folder)
    check(server.run("run", folder, "-o", out, "--models", stand_ins), statuses, message)
    workspace = contents.read(out)
    usable = statuses == READ and kind not in NO_PHOTO
    assert not workspace.problems
    assert len(workspace.features) == len(workspace.rows["images"]) == GOOD + usable


def test_all_bad_photos_together_never_end_a_run(tmp_path: Path, server: Server, stand_ins: Path, photos: Path) -> None:
    folder, out = tmp_path / "photos", tmp_path / "out"
    shutil.copytree(photos, folder)
    bad = list(itertools.chain(BAD.values(), (with_file(name, PHOTO) for name in BAD_NAMES.values())))
    for number, add in enumerate(bad):
        (folder / f"bad {number}").mkdir()
        add(folder / f"bad {number}")
    done = server.run("run", folder, "-o", out, "--models", stand_ins)
    assert f"images      {GOOD + len(bad)}, of which {len(bad)} failed" in done.out
    assert done.status == 1 and done.problem(lines=2 * len(bad)) is None
    workspace = contents.read(out)
    assert len(workspace.features) == len(workspace.rows["images"]) == GOOD and not workspace.problems
    budget.report(f"photos: {len(bad)} bad ones among {GOOD} good ones, in one run; {len(CASES)} kinds in all")
