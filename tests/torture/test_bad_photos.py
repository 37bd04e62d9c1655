"""`lgbatch run` on folders with bad, unusual or badly named photos among good ones."""

import itertools
import shutil
from pathlib import Path

import pytest

from tests.torture import contents, figures
from tests.torture.bad_photos import BAD, BAD_NAMES, FINE, GOOD_NAMES, PHOTO, Maker, holds
from tests.torture.process import Done, Server

GOOD = 4
"""Photos of the fixture `photos`."""
NO_PHOTO = ("folder called photo", "link to its folder", "link to its parent")
CASES: dict[str, tuple[Maker, int, str]] = {
    **{kind: (make, 1, "failed: bad.") for kind, make in BAD.items()},
    **{kind: (make, 0, "images      ") for kind, make in FINE.items()},
    **{f"name: {kind}": (holds(name, PHOTO), 0, "images      5,") for kind, name in GOOD_NAMES.items()},
    **{f"name: {kind}": (holds(name, PHOTO), 1, "rename the file") for kind, name in BAD_NAMES.items()},
    "name: becomes another's": (holds("day 1-b.bmp", PHOTO), 1, "hloc"),
}
"""Kind: how it is made, exit status, and what the message must hold."""


def judge(done: Done, status: int, word: str) -> None:
    # Some lines: libpng writes to the terminal itself about PNGs that are strange although their checksums are right.
    assert done.problem(lines=3) is None, (done.problem(lines=3), done.err)
    assert done.status == status, (done.status, done.err, done.out)
    assert word in done.out + done.err, (word, done.out, done.err)
    assert not any((ord(c) < 32 and c != "\n") or ord(c) == 127 for c in done.out + done.err), "it reaches the terminal"


@pytest.mark.slow
@pytest.mark.parametrize("kind", CASES)
def test_one_bad_photo_never_ends_a_run(
    kind: str, tmp_path: Path, server: Server, standins: Path, photos: Path
) -> None:
    make, status, word = CASES[kind]
    folder, out = tmp_path / "photos", tmp_path / "out"
    shutil.copytree(photos, folder)
    make(folder)
    judge(server.run("run", folder, "-o", out, "--models", standins), status, word)
    left = contents.read(out)
    more = (status == 0 or "becomes" in kind) and kind not in NO_PHOTO
    assert not left.problems
    assert len(left.features) == len(left.rows["images"]) == GOOD + more


def test_all_bad_photos_together_never_end_a_run(tmp_path: Path, server: Server, standins: Path, photos: Path) -> None:
    folder, out = tmp_path / "photos", tmp_path / "out"
    shutil.copytree(photos, folder)
    bad = list(itertools.chain(BAD.values(), (holds(name, PHOTO) for name in BAD_NAMES.values())))
    for number, make in enumerate(bad):
        (folder / f"bad {number}").mkdir()
        make(folder / f"bad {number}")
    done = server.run("run", folder, "-o", out, "--models", standins)
    assert f"images      {GOOD + len(bad)}, of which {len(bad)} failed" in done.out
    assert done.status == 1 and done.problem(lines=2 * len(bad)) is None
    left = contents.read(out)
    assert len(left.features) == len(left.rows["images"]) == GOOD and not left.problems
    figures.tell(f"photos: {len(bad)} bad ones among {GOOD} good ones, in one run; {len(CASES)} kinds in all")
