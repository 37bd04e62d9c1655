"""Rigs: cameras mounted together, as COLMAP's rig_config.json describes them.

The images of a camera are those whose names start with its prefix. What follows the prefix is the name of the frame:
images of the rig's cameras with the same frame name were taken at the same time.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lgbatch.colmap.sensors.calibration import KnownCamera
from lgbatch.colmap.sensors.rig_file import check_rig_file
from lgbatch.colmap.sqlite import REBUILD_HINT
from lgbatch.config import Settings
from lgbatch.errors import DatabaseError, InputError
from lgbatch.pairing.candidates import RigPlace

if TYPE_CHECKING:
    import pycolmap

_Layout = dict[str, tuple[frozenset[str], bytes]]
"""By image name: the names of the images in its frame, and the pose of its camera in the rig."""


@dataclass(frozen=True)
class Rigs:
    """The rigs of a rig_config.json."""

    path: Path
    configs: Sequence["pycolmap.RigConfig"]

    def place(self, name: str) -> RigPlace | None:
        """Return the camera and the frame of an image, or None if it belongs to no rig.

        Raises InputError if the prefixes of two cameras fit the name.
        """
        found = [
            RigPlace(camera.image_prefix, f"{number} {name.rpartition(camera.image_prefix)[2]}")  # as in COLMAP
            for number, config in enumerate(self.configs)
            for camera in config.cameras
            if name.startswith(camera.image_prefix)
        ]
        if len(found) > 1:
            both = " and ".join(place.camera for place in found)
            raise InputError(f"{self.path}: image {name} starts with {both}: end the prefixes of folders with /")
        return found[0] if found else None

    def places(self, names: Iterable[str]) -> dict[str, RigPlace]:
        """Return the camera and the frame of the images that belong to a rig, by name. Raises InputError as `place`."""
        found = {name: self.place(name) for name in names}
        return {name: place for name, place in found.items() if place}

    def known_camera(self, name: str) -> KnownCamera | None:
        """Return the intrinsics that the file gives the camera of an image, or None if it gives none."""
        for config in self.configs:
            for camera in config.cameras:
                if camera.camera and name.startswith(camera.image_prefix):
                    return KnownCamera(camera.camera.model_name, tuple(camera.camera.params), None)
        return None

    def check_poses(self) -> None:
        """Raise InputError if a camera has no pose in its rig. The incremental mapper drops the models of such rigs."""
        for config in self.configs:
            for camera in config.cameras:
                if not (camera.ref_sensor or camera.cam_from_rig):
                    raise InputError(
                        f"{self.path}: camera {camera.image_prefix} has no pose: give cam_from_rig_rotation and "
                        "cam_from_rig_translation, or use --mapper global, which estimates them"
                    )

    def check(self, names: Iterable[str]) -> None:
        """Raise InputError if a camera of a rig has no image in `names`, or no two cameras of a rig share a frame."""
        places = self.places(names)
        used = {place.camera for place in places.values()}
        for config in self.configs:
            prefixes = [camera.image_prefix for camera in config.cameras]
            for prefix in prefixes:
                if prefix not in used:
                    raise InputError(
                        f"{self.path}: no photo starts with {prefix}: give the path below the folder of photos, as "
                        "left/, or remove the camera from the file"
                    )
            taken = {place for place in places.values() if place.camera in prefixes}
            if len(prefixes) > 1 and max(Counter(place.frame for place in taken).values()) == 1:
                raise InputError(
                    f"{self.path}: no photo of {prefixes[0]} has the name of one of {prefixes[1]}: give photos that "
                    "were taken at the same time the same name in each folder"
                )

    def apply(self, db: "pycolmap.Database", stored: Iterable[str]) -> dict[str, int]:
        """Replace rigs and frames of a database. Images that belong to no rig get a rig of one camera, and own frames.

        Of rigs whose photos are only there in part, the cameras with images are used; without the reference camera, the
        rig is left out. Returns counts of rigs with several cameras, of their cameras, of frames with several images,
        and of images that belong to no rig; none if there are no rigs. Raises DatabaseError if frames or rigs of the
        images `stored` change.
        """
        import pycolmap

        stored = set(stored)
        before = _layout(db, stored)
        places = self.places(image.name for image in db.read_all_images())
        pycolmap.apply_rig_config(self._present({place.camera for place in places.values()}), db)
        if _layout(db, stored) != before:
            raise DatabaseError(f"the database has other rigs or frames than {self.path}: {REBUILD_HINT}")
        if not self.configs:
            return {}
        rigs = [rig for rig in db.read_all_rigs() if rig.num_sensors() > 1]
        return {
            "rigs": len(rigs),
            "cameras": sum(rig.num_sensors() for rig in rigs),
            "frames": sum(frame.num_data_ids() > 1 for frame in db.read_all_frames()),
            "other images": db.num_images() - len(places),
        }

    def _present(self, prefixes: set[str]) -> list["pycolmap.RigConfig"]:
        """Return the rigs, without cameras that have no image. A rig without its reference camera is left out."""
        import pycolmap

        present = []
        for config in self.configs:
            cameras = [camera for camera in config.cameras if camera.image_prefix in prefixes]
            if any(camera.ref_sensor for camera in cameras):
                part = pycolmap.RigConfig()
                part.cameras = cameras
                present.append(part)
        return present


def read_rigs(settings: Settings) -> Rigs | None:
    """Return the rigs of the file `settings.rig_config`, or None without one. Raises InputError."""
    if not settings.rig_config:
        return None
    import pycolmap

    path = Path(settings.rig_config)
    check_rig_file(path)
    try:
        return Rigs(path, pycolmap.read_rig_config(path))
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"COLMAP cannot read {path}: {reason}; compare it with COLMAP's documentation of rigs"
        ) from None


def check_rigs(settings: Settings, names: Iterable[str], *, mapper: str = "") -> None:
    """Raise InputError if the file `settings.rig_config` is wrong, or does not fit the images `names` or the mapper."""
    rigs = read_rigs(settings)
    if rigs:
        rigs.check(names)
        if mapper == "incremental":
            rigs.check_poses()


def _layout(db: "pycolmap.Database", names: set[str]) -> _Layout:
    """Return frame and pose in the rig of the images `names`. Other images are left out of the frames."""
    images = {image.image_id: image for image in db.read_all_images() if image.name in names}
    rigs = {rig.rig_id: rig for rig in db.read_all_rigs()}
    layout = {}
    for frame in db.read_all_frames():
        members = [images[data.id] for data in frame.data_ids if data.id in images]
        together = frozenset(image.name for image in members)
        for image in members:
            sensor = image.data_id.sensor_id
            pose = rigs[frame.rig_id].non_ref_sensors.get(sensor)
            layout[image.name] = together, pose.matrix().tobytes() if pose else b""
    return layout
