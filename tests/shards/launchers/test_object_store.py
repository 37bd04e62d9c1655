"""Plans whose photos and units are on an object store: a server of moto, and fsspec's in memory for its faults."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lgbatch.config import Settings
from lgbatch.errors import InputError, LgbatchError
from lgbatch.shards.merge import merge
from lgbatch.shards.object_store import Places, do_unit, exchanged, publish
from lgbatch.workspace.ledger import Ledger
from tests.shards.helpers import Set, differences
from tests.shards.test_local import shard


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an empty bucket of a server on this machine."""
    pytest.importorskip("moto.server")
    s3fs = pytest.importorskip("s3fs")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    for name, value in {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_ENDPOINT_URL": endpoint}.items():
        monkeypatch.setenv(name, value)
    with subprocess.Popen([sys.executable, "-m", "moto.server", "-p", str(port)], stderr=subprocess.DEVNULL) as server:
        try:
            for _ in range(600):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            s3fs.S3FileSystem(skip_instance_cache=True).mkdir("bucket")
            yield "s3://bucket"
        finally:
            server.terminate()


@pytest.fixture
def memory() -> Iterator[Any]:
    """fsspec's file system in memory, empty."""
    fsspec = pytest.importorskip("fsspec")
    files = fsspec.filesystem("memory")
    yield files
    files.rm("/", recursive=True)


@pytest.mark.slow
def test_units_of_a_bucket_are_one_run(planned: Set, single: Path, bucket: str) -> None:
    import s3fs

    s3fs.S3FileSystem(skip_instance_cache=True).put(f"{planned.photos}/", "bucket/photos/", recursive=True)
    options = ["--models", planned.models, "--precision", "fp32", "--threads", 1, "--units", 2]
    places = ["--store", f"{bucket}/big", "--photos-store", f"{bucket}/photos"]
    shard("plan", planned.photos, "-o", planned.out, *options, *places)
    for step in ("extract-1", "match-1"):
        for unit in (0, 1):
            assert " done, in " in shard("work", f"{bucket}/big", "--unit", unit, "--threads", 1)
        shards = planned.folder.results(step)
        assert not list(shards.glob("*.h5"))
        merged = shard("merge", planned.out)
        assert len(list(shards.glob("*.h5"))) == 2
    assert "finished: 9 images, 36 pairs" in merged
    assert differences(planned.out, single) == []
    assert "give --unit N" in shard("work", f"{bucket}/big", "--claim", expect=2)
    assert "there is no plan at" in shard("work", f"{bucket}/small", "--unit", 0, expect=2)


def copied(planned: Set, memory: Any, units: int) -> None:
    """Plan the photos, with copies in memory."""
    memory.put(f"{planned.photos}/", "/photos/", recursive=True)
    planned.plan(units)
    publish(planned.out, Places("memory://big", "memory://photos"))


def test_units_in_memory_have_the_bytes_of_local_ones(planned: Set, memory: Any) -> None:
    copied(planned, memory, 3)
    step = planned.plan(3)
    unit, marker = do_unit("memory://big", 1, Settings(threads=1), None)
    assert do_unit("memory://big", 1, Settings(threads=1), None)[1].began == marker.began
    assert not planned.folder.marker(step.name, unit.name).exists()
    assert planned.worker().do_unit(step, unit).sha256 == marker.sha256


def test_a_photo_that_is_missing_or_changed_fails_alone(planned: Set, memory: Any) -> None:
    copied(planned, memory, 1)
    memory.rm("/photos/a.png")
    memory.pipe_file("/photos/more/006.png", b"other")
    _, marker = do_unit("memory://big", 0, Settings(threads=1), None)
    reasons = {entry["name"]: entry["reason"] for entry in marker.failures}
    assert reasons.keys() == {"a.png", "more/006.png"}
    assert "is gone" in reasons["a.png"] and "has changed" in reasons["more/006.png"]
    with exchanged(planned.out):
        assert merge(planned.out).failures == 2 == len(Ledger(planned.out).entries())
    assert memory.exists("/big/match-1.json")


def test_a_damaged_result_is_removed_and_done_again(planned: Set, memory: Any) -> None:
    copied(planned, memory, 2)
    step = planned.plan(2)
    for number in (0, 1):
        unit, marker = do_unit("memory://big", number, Settings(threads=1), None)
    path = f"/big/{step.name}/{unit.name}"
    memory.pipe_file(f"{path}.h5", memory.cat_file(f"{path}.h5")[:-9] + bytes(9))
    with exchanged(planned.out):
        assert merge(planned.out).damaged
    assert not memory.exists(f"{path}.json")
    assert do_unit("memory://big", 1, Settings(threads=1), None)[1].sha256 == marker.sha256
    with exchanged(planned.out):
        assert merge(planned.out).next_step == "match-1"


def test_what_cannot_be_fetched_is_told_in_a_line(planned: Set, memory: Any) -> None:
    with pytest.raises(LgbatchError, match="nowhere://big: Protocol not known: nowhere; check the URL"):
        do_unit("nowhere://big", 0, Settings(), None)
    with pytest.raises(InputError, match="masks are not fetched"):
        Places("memory://big", "memory://photos").check(Settings(masks="masks"))
    with pytest.raises(InputError, match="no effect without --store"):
        Places("", "memory://photos").check(Settings())
    copied(planned, memory, 1)
    other = Set(planned.photos, planned.out.with_name("other"), planned.models)
    other.plan(2)
    with pytest.raises(InputError, match="there is another plan at memory://big"):
        publish(other.out, Places("memory://big", ""))
    memory.rm("/big/extract-1", recursive=True)
    with pytest.raises(LgbatchError, match=r"memory://big: .*extract-1/inputs"):
        do_unit("memory://big", 0, Settings(), None)
