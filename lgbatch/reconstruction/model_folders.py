"""COLMAP database -> verified pairs and sparse models, through pycolmap.

Verification writes its two-view geometries into the database and skips the pairs that have one, so it goes on
where it stopped. COLMAP does that and the mapping in a process of its own (mapping.py), which may abort. Every random
seed is fixed. Verification then gives the same result with any number of threads;
mapping only with one, and with more the models of a hard scene can differ visibly from run to run.
"""

from pathlib import Path


def numbered_models(sparse: Path) -> list[Path]:
    return [folder for folder in sparse.iterdir() if folder.name.isdecimal()] if sparse.is_dir() else []


def replace_models(models: list[Path], sparse: Path, old: Path) -> None:
    """Put `models` in the place of sparse/0, sparse/1, ...; what else lies there is the user's and stays."""
    sparse.mkdir(parents=True, exist_ok=True)
    old.mkdir()
    moves = [(folder, old / folder.name) for folder in numbered_models(sparse)]
    moves += [(folder, sparse / str(number)) for number, folder in enumerate(models)]
    done: list[tuple[Path, Path]] = []
    try:
        for source, target in moves:
            source.rename(target)
            done.append((source, target))
    except BaseException:
        for source, target in reversed(done):
            target.rename(source)
        raise
