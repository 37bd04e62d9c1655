"""The folders sparse/0, sparse/1, ... of a workspace, one per model, and their replacement by those of a new run.

A replacement moves folders, one after the other. While the draft contains the folder `new`, it is unfinished: a kill
leaves it so, and `finish_replacement` completes it. The models of one of the two runs are complete afterwards.
"""

import shutil
from pathlib import Path


def numbered_models(sparse: Path) -> list[Path]:
    """The model folders in `sparse`, which may not exist: those named by a number."""
    return [folder for folder in sparse.iterdir() if folder.name.isdecimal()] if sparse.is_dir() else []


def draft_folder(sparse: Path) -> Path:
    """The folder beside `sparse` to which a run writes its models."""
    return sparse.with_name(sparse.name + ".partial")


def replace_models(models: list[Path], sparse: Path) -> None:
    """Move `models` to sparse/0, sparse/1, ... and the previous numbered models to the draft.

    Other files in `sparse` belong to the user and stay. If a move fails, all moves are undone and the error is raised;
    the next `finish_replacement` tries again.
    """
    draft = draft_folder(sparse)
    staged = draft / "staged"
    for folder in sparse, staged, draft / "old":
        folder.mkdir(parents=True, exist_ok=True)
    for number, folder in enumerate(models):
        folder.rename(staged / str(number))
    staged.rename(draft / "new")
    finish_replacement(sparse)


def finish_replacement(sparse: Path) -> None:
    """Finish the replacement that a killed process left unfinished, if there is one.

    If a move fails, all moves are undone and the error is raised.
    """
    new, old = draft_folder(sparse) / "new", draft_folder(sparse) / "old"
    if not new.is_dir():
        return
    # New models move after all old ones, in order: while new/0 is there, all models in `sparse` are old.
    replaced = numbered_models(sparse) if (new / "0").exists() else []
    moves = [(folder, old / folder.name) for folder in replaced]
    moves += [(folder, sparse / folder.name) for folder in sorted(new.iterdir(), key=lambda folder: int(folder.name))]
    done: list[tuple[Path, Path]] = []
    try:
        for source, target in moves:
            source.rename(target)
            done.append((source, target))
    except BaseException:
        for source, target in reversed(done):
            target.rename(source)
        raise
    new.rmdir()


def publish_folders(drafts: list[Path], folder: Path) -> None:
    """Replace the numbered folders in `folder` by the drafts, which keep their names.

    For results that one command makes again: a kill in between loses the old ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in numbered_models(folder):
        shutil.rmtree(old)
    for draft in drafts:
        draft.rename(folder / draft.name)


def remove_draft(sparse: Path) -> None:
    """Delete the draft, unless it has models of an unfinished replacement."""
    if not (draft_folder(sparse) / "new").exists():
        shutil.rmtree(draft_folder(sparse), ignore_errors=True)
