"""Matches are stored compressed; those that lgbatch 0.1 stored otherwise are read, kept and packed."""

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from h5py import h5d, h5p, h5s, h5t

from lgbatch.errors import StoreError
from lgbatch.storage.matches import MatchStore
from lgbatch.storage.upkeep.pack import pack
from lgbatch.types import Matches, Pair
from tests.storage.test_store import PROVENANCE, assert_equal, assert_one_line, matches
from tests.torture.harness import hloc_reader

KEYPOINTS, MATCHES = 2048, 350
PAIRS = [Pair("a.jpg", f"{i}.jpg") for i in range(9)]


def usual_matches(i: int) -> Matches:
    """As many matches as a pair with a good overlap has, with scores like those of LightGlue."""
    rng = np.random.default_rng(i)
    first = np.sort(rng.permutation(KEYPOINTS)[:MATCHES])
    second = rng.permutation(KEYPOINTS)[:MATCHES]
    scores = (1 - 0.9 * rng.random(MATCHES) ** 4).astype(np.float32)
    return Matches(np.stack([first, second], axis=1).astype(np.int32), scores)


def datasets(path: Path) -> Iterator[h5py.Dataset]:
    """All datasets of a matches.h5."""
    with h5py.File(path, "r") as file:
        for first in file.values():
            for pair in first.values():
                yield from pair.values()


def write_as_version_0_1(path: Path, layout: int) -> None:
    """Write the first five pairs in the compact layout of lgbatch 0.1, or the contiguous one of its first days."""
    with MatchStore(path, append=PROVENANCE) as store:
        for i, pair in enumerate(PAIRS[:5]):
            store.write(pair, *matches(i))
    with h5py.File(path, "r+") as file:
        for pair in PAIRS[:5]:
            group = file["/".join(pair)]
            for name, dtype in {"matches0": np.int32, "matching_scores0": np.float32}.items():
                values = group[name][()].astype(dtype)
                del group[name]
                creation = h5p.create(h5p.DATASET_CREATE)
                creation.set_layout(layout)
                space, stored = h5s.create_simple(values.shape), h5t.py_create(values.dtype)
                h5d.create(group.id, name.encode(), stored, space, dcpl=creation).write(h5s.ALL, h5s.ALL, values)


def test_a_pair_takes_3_kilobytes_however_often_the_store_commits(tmp_path: Path) -> None:
    sizes = []
    for step in 40, 1:
        path = tmp_path / f"{step}.h5"
        with MatchStore(path, append=PROVENANCE) as store:
            for i in range(40):
                store.write(Pair(f"photo {i % 9}.jpg", f"{i:06d}.jpg"), usual_matches(i), KEYPOINTS)
                if (i + 1) % step == 0:
                    store.commit()
        sizes.append(path.stat().st_size)
        for i in range(40):
            expected, names = usual_matches(i), (f"photo {i % 9}.jpg", f"{i:06d}.jpg")
            for actual, wanted in zip(hloc_reader.get_matches(path, *names), vars(expected).values(), strict=True):
                np.testing.assert_array_equal(actual, wanted)
    assert max(sizes) < 40 * 3600
    assert sizes[1] < sizes[0] + 4096


@pytest.mark.parametrize("layout", [h5d.COMPACT, h5d.CONTIGUOUS])
def test_a_file_of_an_earlier_version_is_read_appended_to_and_packed(tmp_path: Path, layout: int) -> None:
    path = tmp_path / "matches.h5"
    write_as_version_0_1(path, layout)
    assert {data.id.get_create_plist().get_layout() for data in datasets(path)} == {layout}
    with MatchStore(path, append=PROVENANCE) as store:
        for i in range(5, 9):
            store.write(PAIRS[i], *matches(i))
        store.remove(PAIRS[3])
        store.set_geometry(PAIRS[1], b"old")
        store.set_geometry(PAIRS[7], b"new")
    kept = [i for i in range(9) if i != 3]
    for packed in False, True:
        if packed:
            pack(path)
        layouts = [data.id.get_create_plist().get_layout() for data in datasets(path)]
        assert layouts.count(h5d.CHUNKED) == (16 if packed else 8)
        with MatchStore(path) as store:
            assert sorted(store.pairs([*sum(PAIRS, ())])) == sorted(PAIRS[i] for i in kept)
            for i in kept:
                assert_equal(store.read(PAIRS[i]), matches(i)[0])
                assert store.record(PAIRS[i]).matches == len(matches(i)[0].indices)
            assert (store.geometry(PAIRS[1]), store.geometry(PAIRS[7])) == (b"old", b"new")
            assert [entry["items"] for entry in store.provenances.values()] == [8]


def test_packing_compresses_what_an_earlier_version_wrote(tmp_path: Path) -> None:
    path = tmp_path / "matches.h5"
    with MatchStore(path, append=PROVENANCE) as store:
        for i, pair in enumerate(PAIRS):
            store.write(pair, usual_matches(i), KEYPOINTS)
    compressed = path.stat().st_size
    with h5py.File(path, "r+") as file:
        for pair in PAIRS:
            values = file["/".join(pair)]["matches0"][()].astype(np.int32)
            del file["/".join(pair)]["matches0"]
            file["/".join(pair)]["matches0"] = values
    done = pack(path)
    assert done.bytes_after < compressed + 1000 < done.bytes_before / 3
    assert {data.dtype for data in datasets(path)} == {np.dtype(np.int16), np.dtype(np.float32)}


@pytest.mark.parametrize("name", ["matches0", "matching_scores0"])
def test_a_changed_byte_is_noticed(tmp_path: Path, name: str) -> None:
    path = tmp_path / "matches.h5"
    with MatchStore(path, append=PROVENANCE) as store:
        store.write(PAIRS[0], usual_matches(0), KEYPOINTS)
    with h5py.File(path, "r") as file:
        chunk = file["/".join(PAIRS[0])][name].id.get_chunk_info(0)
    data = path.read_bytes()
    for position in range(chunk.byte_offset, chunk.byte_offset + chunk.size, 97):
        path.write_bytes(data[:position] + bytes([data[position] ^ 4]) + data[position + 1 :])
        with MatchStore(path) as store:
            with pytest.raises(StoreError) as error:
                store.read(PAIRS[0])
            assert_one_line(error, "a.jpg 0.jpg", str(path), "is damaged", f"`lgbatch repair {path}`")
