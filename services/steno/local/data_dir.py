"""The folder in which everything of one platform lies."""

from __future__ import annotations

import json
import os
import secrets
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
            folder.mkdir(parents=True, exist_ok=True)
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


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner can read, whole or not at all."""
    new = path.with_name(f"{path.name}.{os.getpid()}")
    new.touch(0o600)
    new.write_text(text)
    new.replace(path)
