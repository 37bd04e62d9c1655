"""cameras.xml of Agisoft Metashape, which it imports as "Agisoft XML".

The principal point is given from the centre of the image, and p1 and p2 are OpenCV's p2 and p1. Source: Agisoft
Metashape User Manual, appendix "Camera models".
"""

from collections import Counter
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import numpy as np

from lgbatch.errors import InputError
from lgbatch.interchange.formats.lens import Lens
from lgbatch.interchange.formats.scene import Scene
from lgbatch.storage.durable import replace_synced

_VERSION = "1.5.0"


def write_metashape(scene: Scene, folder: Path) -> list[Path]:
    """Write cameras.xml. Returns its path.

    Metashape gives the cameras to the photos of a chunk with the same label, the file name without its ending. Raises
    InputError if two photos have one label, or Metashape has no such cameras.
    """
    labels = {image.name: PurePosixPath(image.name).stem for image in scene.images()}
    for label, count in Counter(labels.values()).items():
        if count > 1:
            raise InputError(
                f"{count} photos are named {label}, which Metashape cannot tell apart: run `lgbatch undistort --flat` "
                "and convert its folder"
            )
    document = Element("document", version=_VERSION)
    chunk = SubElement(document, "chunk", label="lgbatch", enabled="true")
    used = sorted({image.camera_id for image in scene.images()})
    sensors = SubElement(chunk, "sensors", next_id=str(len(used)))
    for number, camera_id in enumerate(used):
        _add_sensor(sensors, number, Lens.of(scene.model.cameras[camera_id], "Metashape"))
    cameras = SubElement(chunk, "cameras", next_id=str(len(labels)), next_group_id="0")
    for number, image in enumerate(scene.images()):
        sensor = str(used.index(image.camera_id))
        camera = SubElement(cameras, "camera", id=str(number), sensor_id=sensor, label=labels[image.name])
        world_from_camera = np.eye(4)
        world_from_camera[:3] = image.cam_from_world().inverse().matrix()
        SubElement(camera, "transform").text = " ".join(repr(float(value)) for value in world_from_camera.ravel())
    ElementTree.indent(document)
    data = ElementTree.tostring(document, encoding="UTF-8", xml_declaration=True)
    replace_synced(folder / "cameras.xml", data)
    return [folder / "cameras.xml"]


def _add_sensor(sensors: Element, number: int, lens: Lens) -> None:
    kind = "fisheye" if lens.fisheye else "frame"
    size = {"width": str(lens.size[0]), "height": str(lens.size[1])}
    sensor = SubElement(sensors, "sensor", id=str(number), label=f"camera {number + 1}", type=kind)
    SubElement(sensor, "resolution", size)
    calibration = SubElement(sensor, "calibration", {"type": kind, "class": "adjusted"})
    SubElement(calibration, "resolution", size)
    (fx, fy), (cx, cy), (width, height) = lens.focal, lens.centre, lens.size
    values = {"f": fy, "cx": cx - width / 2, "cy": cy - height / 2, "b1": fx - fy, "b2": 0.0}
    values |= dict(zip(("k1", "k2", "k3", "k4"), lens.radial, strict=True))
    values |= {"p1": lens.tangential[1], "p2": lens.tangential[0]}
    for name, value in values.items():
        SubElement(calibration, name).text = repr(float(value))
