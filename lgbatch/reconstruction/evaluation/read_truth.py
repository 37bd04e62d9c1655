"""Ground truth in the format that its files have."""

from pathlib import Path

from lgbatch.errors import InputError
from lgbatch.reconstruction.evaluation.formats.colmap_model import model_in, read_colmap
from lgbatch.reconstruction.evaluation.formats.nerfstudio import FILE, read_nerfstudio
from lgbatch.reconstruction.evaluation.formats.pose_files import pose_files, read_pose_files
from lgbatch.reconstruction.evaluation.formats.strecha import read_strecha
from lgbatch.reconstruction.evaluation.formats.trajectory import is_trajectory, read_trajectory
from lgbatch.reconstruction.evaluation.truth import Truth

_FORMATS = (
    "give a folder of Strecha's NAME.camera files, of a COLMAP model, or of 4 x 4 poses (NAME.txt or NAME.pose.txt), a "
    "transforms.json, or a TUM trajectory"
)


def read_truth(path: Path) -> Truth:
    """Read ground truth from a folder or file. The format is recognised by the content.

    Raises InputError if there is none, or it cannot be read.
    """
    if path.is_dir():
        return _read_folder(path)
    if path.is_file() and _begins_json(path):
        return _read_json(path)
    if path.is_file() and is_trajectory(path):
        cameras, times, skipped = read_trajectory(path)
        return Truth("TUM trajectory", cameras, skipped, times)
    raise InputError(f"{f'no ground truth in {path}' if path.exists() else f'there is no {path}'}: {_FORMATS}")


def _read_folder(folder: Path) -> Truth:
    if any(folder.glob("*.camera")):
        return Truth("Strecha .camera files", read_strecha(folder))
    if (folder / FILE).is_file():
        return _read_json(folder / FILE)
    if model := model_in(folder):
        return Truth("COLMAP model", read_colmap(model))
    if files := pose_files(folder):
        return Truth("pose files", *read_pose_files(files))
    raise InputError(f"no ground truth in {folder}: {_FORMATS}")


def _read_json(path: Path) -> Truth:
    return Truth("transforms.json", *read_nerfstudio(path))


def _begins_json(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(100).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")
