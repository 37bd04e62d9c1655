"""Which image a known camera is of."""

from pathlib import PurePosixPath

import pytest

from lgbatch.reconstruction.evaluation.names import match_names, match_times


@pytest.mark.parametrize(
    ("camera", "image"),
    [
        ("a/0001.jpg", "a/0001.jpg"),
        ("0001", "0001.jpg"),
        ("0001.png", "photos/0001.JPG"),
        ("images/a/0001.png", "a/0001.jpg"),
        ("train/r_1", "r_1.png"),
        ("frame-000001", "frame-000001.color.png"),
        ("a.b", "a.b.tif"),
    ],
)
def test_names_may_differ_in_folder_and_extension(camera: str, image: str) -> None:
    other = str(PurePosixPath(camera).with_name("other"))
    found = match_names([camera, other], [image, "photos/third.jpg"])
    assert found.camera_of == {image: camera}
    assert (found.ambiguous, found.absent) == ((), (other,))


def test_the_folders_that_all_names_share_do_not_matter() -> None:
    cameras, images = ["images/x.png", "images/left/x.png"], ["x.jpg", "left/x.jpg"]
    assert match_names(cameras, images).camera_of == dict(zip(images, cameras, strict=True))


def test_the_way_that_matches_most_cameras_counts() -> None:
    cameras = ["left/1.jpg", "left/2.jpg", "right/1.jpg", "right/2.jpg"]
    found = match_names(cameras, ["left/1.jpg", "right/2.jpg", "left/2.jpg"])
    assert found.camera_of == {name: name for name in ("left/1.jpg", "left/2.jpg", "right/2.jpg")}
    assert (found.ambiguous, found.absent) == ((), ("right/1.jpg",))


def test_names_that_several_images_share_are_ambiguous() -> None:
    found = match_names(["1", "2", "3"], ["left/1.jpg", "right/1.jpg", "left/2.jpg"])
    assert found.camera_of == {"left/2.jpg": "2"}
    assert (found.ambiguous, found.absent) == (("1",), ("3",))


def test_no_names_match_nothing() -> None:
    assert match_names([], ["a.jpg"]).camera_of == {}
    assert match_names(["a"], []).absent == ("a",)
    assert match_times({}, ["1.jpg"]).camera_of == {}
    assert match_times({"1": 1.0}, ["a.jpg"]).absent == ("1",)


def times(*values: float) -> dict[str, float]:
    return {str(value): value for value in values}


@pytest.mark.parametrize("name", ["rgb/{:.6f}.png", "2_{:.6f}_left.jpg"])
def test_the_nearest_pose_in_time_belongs_to_an_image(name: str) -> None:
    poses = times(1305031102.160407, 1305031102.170501, 1305031102.180407, 1305031102.9)
    images = [name.format(t) for t in (1305031102.175304, 1305031102.2003, 1305031102.163)]
    found = match_times(poses, images)
    assert found.camera_of == {
        images[0]: "1305031102.170501",
        images[1]: "1305031102.180407",
        images[2]: "1305031102.160407",
    }
    assert found.absent == ("1305031102.9",)


def test_times_may_be_nanoseconds_or_numbers_of_frames() -> None:
    poses = times(1403636579.7635555, 1403636579.8135555)
    images = ["mav0/cam0/1403636579763555584.png", "mav0/cam0/1403636579813555456.png"]
    assert match_times(poses, images).camera_of == dict(zip(images, poses, strict=True))
    frames = [f"cam2-frame{i:06}.jpg" for i in range(40)]
    assert match_times(times(*map(float, range(40))), frames).camera_of == {
        frame: f"{i}.0" for i, frame in enumerate(frames)
    }


def test_images_of_one_time_are_ambiguous_and_a_pose_has_one_image() -> None:
    found = match_times(times(1.0, 2.0), ["left/1.0.png", "right/1.0.png", "2.0.png", "2.015.png"])
    assert found.camera_of == {"2.0.png": "2.0"}
    assert found.ambiguous == ("left/1.0.png", "right/1.0.png")
    assert found.absent == ("1.0",)
