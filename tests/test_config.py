import dataclasses
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import pytest

from lgbatch.config import Settings, Stage
from lgbatch.configs import preset
from lgbatch.configs.fields import meta
from lgbatch.errors import InputError

PRESETS = sorted(p.name for p in resources.files("lgbatch.configs").iterdir() if p.name.endswith(".toml"))


def write_settings(folder: Path, text: str) -> Path:
    path = folder / "settings.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_then_file_then_changes(tmp_path: Path) -> None:
    path = write_settings(tmp_path, "max_keypoints = 512\nresize = 0\nfilter_threshold = 0\n")
    settings = Settings.load(path, resize=640, extractor=None)
    assert (settings.max_keypoints, settings.resize, settings.filter_threshold) == (512, 640, 0)
    assert settings == Settings(max_keypoints=512, resize=640, filter_threshold=0)
    assert Settings.load() == Settings()
    assert Settings(**settings.as_dict()) == settings


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().resize = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("max_keypoint", "did you mean 'max_keypoints'?"),
        ("max-keypoints", "did you mean 'max_keypoints'?"),
        ("Resize", "did you mean 'resize'?"),
        ("zzz", "known settings are ca"),
    ],
)
def test_an_unknown_key_suggests_the_nearest_one(tmp_path: Path, key: str, hint: str) -> None:
    path = write_settings(tmp_path, f"{key} = 5")
    for where, load in ("", lambda: Settings.load(**{key: 5})), (f"{path}: ", lambda: Settings.load(path)):
        with pytest.raises(InputError) as error:
            load()
        assert str(error.value).startswith(f"{where}unknown setting '{key}'; {hint}")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"max_keypoints": 0}, "max_keypoints must be in 1..65536, not 0"),
        ({"max_keypoints": 65537}, "max_keypoints must be in 1..65536, not 65537"),
        ({"max_keypoints": 5.0}, "max_keypoints must be a whole number, not 5.0"),
        ({"max_keypoints": True}, "max_keypoints must be a whole number, not true"),
        ({"window": 0}, "window must be at least 1, not 0"),
        ({"filter_threshold": 1.5}, "filter_threshold must be in 0.0..1.0, not 1.5"),
        ({"filter_threshold": float("nan")}, "filter_threshold must be in 0.0..1.0, not nan"),
        ({"filter_threshold": "0.1"}, "filter_threshold must be a number, not '0.1'"),
        ({"camera_model": 5}, "camera_model must be text, not 5"),
        ({"device": "gpu"}, "device must be one of auto, cpu, cuda, tensorrt, openvino, coreml, directml, not 'gpu'"),
        (
            {"device": ["cpu"]},
            "device must be one of auto, cpu, cuda, tensorrt, openvino, coreml, directml, not ['cpu']",
        ),
    ],
)
def test_an_invalid_value_names_the_valid_ones(changes: dict[str, Any], reason: str) -> None:
    for make in Settings, Settings.load:
        with pytest.raises(InputError) as error:
            make(**changes)
        assert str(error.value) == reason


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"resize = ", "is not valid TOML"),
        (b"resize = " + b"[" * 100_000, "cannot read settings"),
        (b"resize = " + b"9" * 10_000, "cannot read settings"),
        (b'"a\\nb" = 1', r"unknown setting 'a\nb'"),
        (b"resize = '\xff'", "it is not UTF-8 text; save it as UTF-8"),
        (b"resize = 'x'", "resize must be a whole number, not 'x'"),
        (b"window = 0", "window must be at least 1, not 0"),
        (None, "No such file or directory; give a TOML file or a preset"),
    ],
)
def test_an_unreadable_file_raises_a_one_line_input_error(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "settings.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as error:
        Settings.load(path)
    assert reason in str(error.value) and "\n" not in str(error.value)
    assert str(error.value).count(str(path)) == 1


def test_a_setting_tells_which_other_one_leaves_it_without_effect() -> None:
    assert Settings(window=5).disabled_by("window") == "pairing"
    assert Settings(pairing="sequential").disabled_by("window") is None
    assert Settings(calibration="cameras.txt").disabled_by("camera_model") == "calibration"
    assert Settings().disabled_by("camera_model") is Settings().disabled_by("resize") is None


def test_the_package_has_presets() -> None:
    assert {"fast.toml", "detailed.toml"} <= set(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_loads_and_changes_exactly_its_settings(name: str) -> None:
    path = preset(name.removesuffix(".toml"))
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ")
    values, loaded, defaults = tomllib.loads(text), Settings.load(path).as_dict(), Settings().as_dict()
    assert values
    assert {key: value for key, value in loaded.items() if value != defaults[key]} == values


def test_a_preset_is_a_name_or_a_file(tmp_path: Path) -> None:
    assert preset("my/own.toml") == Path("my/own.toml")
    with pytest.raises(ValueError, match=r"no preset 'quick': give a \.toml file or one of detailed, fast"):
        preset("quick")


def test_settings_affect_the_stages_that_use_them() -> None:
    assert Settings(window=3).affecting("match") == Settings(threads=3).affecting("match")
    assert Settings(filter_threshold=0.2).affecting("match") != Settings().affecting("match")
    for stage in get_args(Stage):
        assert Settings().recorded(stage).items() <= Settings().affecting(stage).items()
    assert Settings().recorded("extract").keys() == {"extractor", "max_keypoints", "resize"}
    users = {user for f in dataclasses.fields(Settings) for user in meta(f).users}
    commands = {"run", "infer", "doctor", "shard", "undistort", "bench match", "bench extract", "bench run"}
    assert users == {*get_args(Stage), *commands}
    assert all(meta(f).users and meta(f).help and meta(f).group for f in dataclasses.fields(Settings))
    assert all({*meta(f).help_for} <= {*meta(f).users} for f in dataclasses.fields(Settings))


def test_the_help_is_that_of_the_command() -> None:
    rotation = meta(next(f for f in dataclasses.fields(Settings) if f.name == "rotation"))
    assert rotation.help_in(("match", "import")).startswith("Whether the database gets the direction of gravity")
    assert rotation.help_in(("orient", "extract")) == rotation.help_in(("orient", "import")) == rotation.help
    assert rotation.help_in(()) == rotation.help
