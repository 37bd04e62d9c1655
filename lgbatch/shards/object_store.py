"""Units on an object store, through fsspec: S3, Google Cloud Storage and others.

HDF5 files are made and read in local folders, and travel whole. A worker fetches what its unit needs, and uploads the
store of the unit, then its marker. The machine that plans and merges has the workspace, and exchanges files with the
object store before and after a merge. There are no leases: two attempts at one unit upload the same bytes.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from lgbatch.config import Settings
from lgbatch.errors import InputError, LgbatchError
from lgbatch.shards.folder import ShardFolder, read_json, write_once
from lgbatch.shards.markers import Marker, read_marker
from lgbatch.shards.steps import Step, Unit, read_inputs, read_steps
from lgbatch.shards.units.pairs import shards_of
from lgbatch.shards.units.photos import photos_of
from lgbatch.shards.work import Worker, unit_by_number
from lgbatch.workspace.folder import Workspace

_PLACES = "object-store.json"


@dataclass(frozen=True)
class Places:
    """Where a plan is on an object store, in OUT/shards/object-store.json."""

    store: str
    """URL of the folder of plan, shards and markers."""
    photos: str
    """URL of the folder of the photos; empty if workers read them in the folder of the plan."""

    def check(self, settings: Settings) -> None:
        """Raise InputError if the settings name masks, which are not fetched, or there is a store without photos."""
        if self.photos and not self.store:
            raise InputError("--photos-store has no effect without --store: give both")
        if self.photos and (settings.masks or settings.camera_mask):
            raise InputError("masks are not fetched from an object store: leave out --photos-store or the masks")


class ObjectStore:
    """A folder of an object store. Paths in it are relative to the folder, with '/'. Methods raise LgbatchError."""

    def __init__(self, url: str) -> None:
        """Open the folder of a URL, such as s3://bucket/folder."""
        self._url = url
        with self._told():
            import fsspec

            self._files, self._root = fsspec.core.url_to_fs(url, use_listings_cache=False)

    def paths(self) -> set[str]:
        """All files below the folder."""
        with self._told():
            found = self._files.find(self._root)
        return {PurePosixPath(path).relative_to(PurePosixPath(self._root)).as_posix() for path in found}

    def fetch(self, paths: Sequence[str], folder: Path) -> None:
        """Copy files into a local folder, at the same relative paths, each under another name until it is whole."""
        with self._told():
            self._get(paths, folder)

    def fetch_present(self, paths: Sequence[str], folder: Path) -> None:
        """Copy files as `fetch`, leaving out those that are not there."""
        with self._told():
            try:
                self._get(paths, folder)
            except FileNotFoundError:
                for path in paths:
                    with suppress(FileNotFoundError):
                        self._get([path], folder)

    def upload(self, paths: Sequence[str], folder: Path) -> None:
        """Copy files of a local folder, one after the other. A file is there as a whole, or not at all."""
        for path in paths:
            with self._told():
                self._files.put_file(str(folder / path), f"{self._root}/{path}")

    def remove(self, path: str) -> None:
        """Remove a file."""
        with self._told():
            self._files.rm_file(f"{self._root}/{path}")

    def _get(self, paths: Sequence[str], folder: Path) -> None:
        targets = [folder / path for path in paths]
        drafts = [path.with_name(f".{path.name}.fetched") for path in targets]
        for parent in {path.parent for path in targets}:
            parent.mkdir(parents=True, exist_ok=True)
        self._files.get([f"{self._root}/{path}" for path in paths], [str(path) for path in drafts])
        for draft, path in zip(drafts, targets, strict=True):
            draft.replace(path)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn the errors of fsspec and of the packages that it calls into one line."""
        try:
            yield
        except ImportError:
            raise LgbatchError(f"{self._url} needs a package: run `pip install 'lgbatch[cloud]'`") from None
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise LgbatchError(f"{self._url}: {reason}; check the URL and your rights, and run it again") from error


def is_url(place: str) -> bool:
    """Whether a place is on an object store."""
    return "://" in place


def publish(out: Path, places: Places) -> None:
    """Put the steps of a plan on an object store. Raises InputError if there is another plan, or as write_once."""
    folder, store = ShardFolder(Workspace(out)), ObjectStore(places.store)
    if "plan.json" in store.paths():
        with tempfile.TemporaryDirectory(prefix="lgbatch-") as temporary:
            store.fetch(["plan.json"], Path(temporary))
            if Path(temporary, "plan.json").read_bytes() != folder.plan.read_bytes():
                raise InputError(f"there is another plan at {places.store}: give another URL")
    write_once(folder.root / _PLACES, asdict(places))
    with exchanged(out):
        pass


@contextmanager
def exchanged(out: Path) -> Iterator[None]:
    """Fetch results before the block, and upload new steps after it, if the plan of a workspace is on an object store.

    The marker of a result that the block has found damaged is removed there, too.
    """
    folder = ShardFolder(Workspace(out))
    if not (folder.root / _PLACES).exists():
        yield
        return
    store = ObjectStore(_read_places(folder).store)
    before = store.paths()
    for shard, marker in _results(folder):
        if marker in before and not ((folder.root / shard).exists() and (folder.root / marker).exists()):
            store.fetch([shard, marker], folder.root)
    yield
    for _, marker in _results(folder):
        if marker in before and not (folder.root / marker).exists():
            store.remove(marker)
    for step in read_steps(folder):
        inputs = [_relative(folder, folder.inputs(step.name, unit.name)) for unit in step.units]
        store.upload([path for path in (*inputs, f"{step.name}.json") if path not in before], folder.root)
    store.upload([path for path in (_PLACES, "plan.json") if path not in before], folder.root)


def do_unit(url: str, number: int, machine: Settings, models: Path | None) -> tuple[Unit, Marker]:
    """Do a unit of the current step of a plan on an object store, in a temporary folder, unless it is done.

    A photo that is missing, or has not the size of the plan, fails. Raises as `Worker`, and LgbatchError if a file
    cannot be fetched.
    """
    store = ObjectStore(url)
    paths = store.paths()
    if "plan.json" not in paths:
        raise InputError(f"there is no plan at {url}: run `lgbatch shard plan PHOTOS -o OUT --store {url}`")
    with tempfile.TemporaryDirectory(prefix="lgbatch-") as temporary:
        folder = ShardFolder(Workspace(Path(temporary, "out")))
        store.fetch(sorted(path for path in paths if "/" not in path), folder.root)
        places, step = _read_places(folder), _current_step(folder, paths)
        unit = unit_by_number(step, number)
        marker = _relative(folder, folder.marker(step.name, unit.name))
        if marker in paths:
            store.fetch([marker], folder.root)
            if done := read_marker(folder.root / marker):
                return unit, done
        store.fetch([_relative(folder, folder.inputs(step.name, unit.name))], folder.root)
        photos = Path(temporary, "photos") if places.photos else None
        if step.kind == "match":
            store.fetch(shards_of(read_inputs(folder, step, unit)), folder.root)
        elif photos:
            _fetch_photos(ObjectStore(places.photos), folder, step, unit, photos)
        result = Worker(folder.workspace.root, machine, models, photos).do_unit(step, unit)
        store.upload([_relative(folder, folder.shard(step.name, unit.name)), marker], folder.root)
        return unit, result


def _fetch_photos(store: ObjectStore, folder: ShardFolder, step: Step, unit: Unit, target: Path) -> None:
    """Fetch the photos of a unit, with the times that they had when they were planned."""
    photos = photos_of(read_inputs(folder, step, unit))
    store.fetch_present([photo.name for photo in photos], target)
    for photo in photos:
        path, planned = target / photo.name, photo.files[0]
        if planned and path.exists():
            os.utime(path, ns=(planned[1], planned[1]))


def _current_step(folder: ShardFolder, paths: set[str]) -> Step:
    """The first step with a unit that has no marker, or else the last one."""
    steps = read_steps(folder)
    if not steps:
        raise InputError("the plan has no step: run `lgbatch shard plan` again")

    def is_open(step: Step) -> bool:
        return any(_relative(folder, folder.marker(step.name, unit.name)) not in paths for unit in step.units)

    return next(filter(is_open, steps), steps[-1])


def _results(folder: ShardFolder) -> Iterator[tuple[str, str]]:
    """The paths of the store and of the marker of each unit, below the folder of shards."""
    for step in read_steps(folder):
        for unit in step.units:
            shard, marker = folder.shard(step.name, unit.name), folder.marker(step.name, unit.name)
            yield _relative(folder, shard), _relative(folder, marker)


def _relative(folder: ShardFolder, path: Path) -> str:
    return path.relative_to(folder.root).as_posix()


def _read_places(folder: ShardFolder) -> Places:
    return Places(**read_json(folder.root / _PLACES, "place of the plan"))
