"""The folder in which everything of one platform lies."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Secrets:
    """What the servers of one folder ask for. Made once, readable by the owner only."""

    postgres_password: str
    nats_password: str
    s3_access_key: str
    s3_secret_key: str

    @classmethod
    def of(cls, folder: Path) -> Secrets:
        """Reads the folder's secrets, or makes them."""
        path = folder / "secrets.json"
        if not path.exists():
            make(folder)
            made = cls(
                postgres_password=secrets.token_hex(16),
                nats_password=secrets.token_hex(16),
                s3_access_key=secrets.token_hex(8),
                s3_secret_key=secrets.token_hex(20),
            )
            write_private(path, json.dumps(asdict(made), indent=2))
        return cls(**json.loads(path.read_text()))

    def s3_identities(self) -> str:
        """SeaweedFS's list of who may do what."""
        identity = {
            "name": "steno",
            "credentials": [{"accessKey": self.s3_access_key, "secretKey": self.s3_secret_key}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        return json.dumps({"identities": [identity]})


def make(folder: Path) -> None:
    """Makes the folder if it is not there. Recordings lie in it: it is its owner's alone."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner can read, whole or not at all."""
    new = path.with_name(f"{path.name}.{os.getpid()}")
    new.touch(0o600)
    new.write_text(text)
    new.replace(path)


class FolderInUse(Exception):
    """Another platform runs in this folder."""


def default_folder() -> Path:
    """The folder when none is named: $STENO_HOME, else the user's own place for data."""
    if home := os.environ.get("STENO_HOME"):
        return Path(home)
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "steno"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps the folder for this process. The kernel lets go of it when the process ends.

    Raises FolderInUse if another process has it.
    """
    make(folder)
    with (folder / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise FolderInUse(
                f"steno runs already on {folder} (process {lock.read().strip()}); "
                "stop it, or choose another folder with --data-dir"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
        lock.truncate(0)


@dataclass(frozen=True)
class Running:
    """What other commands need to know of a running platform; D/steno.json."""

    pid: int
    """Process id of `steno up`."""
    addresses: dict[str, str]
    """gRPC addresses, `host:port`, by service; further workers are `transcription-2` and so on."""
    metrics: dict[str, str]
    """Prometheus endpoints by process."""
    servers: dict[str, str]
    """Addresses of Postgres, NATS and S3, without their secrets."""
    models: list[str]
    """Models that the workers serve; the first is the default of jobs."""
    logs: str
    """Folder of the logs, a file for each process."""

    @staticmethod
    def path(folder: Path) -> Path:
        """Where it is kept."""
        return folder / "steno.json"

    @classmethod
    def read(cls, folder: Path) -> Running | None:
        """Reads a folder's; None if no platform runs there."""
        try:
            told = json.loads(cls.path(folder).read_text())
            # Other versions tell other things; what all commands need are the addresses.
            known = {name: told.get(name, []) for name in cls.__dataclass_fields__}
            return cls(**known)
        except FileNotFoundError:
            return None

    def write(self, folder: Path) -> None:
        """Tells the other commands."""
        write_private(self.path(folder), json.dumps(asdict(self), indent=2))
