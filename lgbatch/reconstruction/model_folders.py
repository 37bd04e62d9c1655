"""The folders sparse/0, sparse/1, ... of a workspace, one per model."""

from pathlib import Path


def numbered_models(sparse: Path) -> list[Path]:
    """The model folders in `sparse`, which may not exist: those named by a number."""
    return [folder for folder in sparse.iterdir() if folder.name.isdecimal()] if sparse.is_dir() else []


def replace_models(models: list[Path], sparse: Path, old: Path) -> None:
    """Move `models` to sparse/0, sparse/1, ... and the previous numbered models to the new folder `old`.

    Other files in `sparse` belong to the user and stay. If a move fails, all moves are undone and the error is raised.
    """
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
