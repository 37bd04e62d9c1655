"""Check the structure of a rig_config.json, which COLMAP's reader takes as it is: it even reads numbers past a pose."""

import json
import math
from pathlib import Path
from typing import Any

from lgbatch.colmap.sensors.calibration import parse_params
from lgbatch.errors import InputError

_POSE = {"cam_from_rig_rotation": 4, "cam_from_rig_translation": 3}
_INTRINSICS = ("camera_model_name", "camera_params")


def check_rig_file(path: Path) -> None:
    """Raise InputError, which says where, if the file cannot be read or is not a rig_config.json as COLMAP has it."""
    rigs = _read(path)
    if not isinstance(rigs, list) or not rigs or not all(_cameras(rig) for rig in rigs):
        raise InputError(f'{path}: expected a list of rigs {{"cameras": [...]}}, as in COLMAP\'s rig_config.json')
    for number, rig in enumerate(rigs, 1):
        for position, camera in enumerate(_cameras(rig), 1):
            _check_camera(camera, f"{path}, rig {number}, camera {position}")
        references = sum(camera.get("ref_sensor") is True for camera in _cameras(rig))
        if references != 1:
            raise InputError(f'{path}, rig {number}: {references} cameras have "ref_sensor": true, one must have it')
    prefixes = [camera["image_prefix"] for rig in rigs for camera in _cameras(rig)]
    for prefix in prefixes:
        if prefixes.count(prefix) > 1:
            raise InputError(f"{path}: two cameras have the image_prefix {prefix}: give each its own")


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; give the path of a rig_config.json") from None
    except (ValueError, RecursionError) as error:  # also UnicodeDecodeError
        raise InputError(f"{path} is not JSON: {error}; give a rig_config.json as COLMAP has it") from None


def _cameras(rig: Any) -> list[Any]:
    """Return the cameras of a rig; none if it is malformed."""
    cameras = rig.get("cameras") if isinstance(rig, dict) else None
    return cameras if isinstance(cameras, list) and all(isinstance(camera, dict) for camera in cameras) else []


def _check_camera(camera: dict[str, Any], where: str) -> None:
    prefix = camera.get("image_prefix")
    if not isinstance(prefix, str) or not prefix:
        raise InputError(f'{where}: give an "image_prefix", the start of the names of its photos, as left/')
    if camera.get("ref_sensor", False) not in (True, False):
        raise InputError(f"{where}: ref_sensor must be true or false")
    pose = [key for key in _POSE if key in camera]
    if pose and camera.get("ref_sensor"):
        raise InputError(f"{where}: the reference camera has no {pose[0]}: leave it out")
    if len(pose) == 1:
        raise InputError(f"{where}: give both or none of {' and '.join(_POSE)}")
    for key in pose:
        if not _is_vector(camera[key], _POSE[key]):
            raise InputError(f"{where}: {key} must be {_POSE[key]} numbers")
    if pose and abs(math.hypot(*camera["cam_from_rig_rotation"]) - 1) > 1e-3:
        raise InputError(f"{where}: cam_from_rig_rotation must be a quaternion w, x, y, z of length 1")
    _check_intrinsics(camera, where)


def _check_intrinsics(camera: dict[str, Any], where: str) -> None:
    given = [key for key in _INTRINSICS if key in camera]
    if len(given) == 1:
        raise InputError(f"{where}: give both or none of {' and '.join(_INTRINSICS)}")
    if given:
        model, params = camera["camera_model_name"], camera["camera_params"]
        parse_params([str(p) for p in params] if isinstance(params, list) else [], str(model), where)


def _is_vector(value: Any, length: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == length
        and all(isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) for x in value)
    )
