from __future__ import annotations

import os
from pathlib import Path

import pytest

from steno.local.data_dir import FolderInUse, Running, Secrets, default_folder, locked

RUNNING = Running(
    pid=7,
    addresses={"job": "127.0.0.1:50052"},
    metrics={"job": "127.0.0.1:9092"},
    servers={"nats": "127.0.0.1:4222"},
    models=["builtin"],
    logs="/logs",
)


def test_a_folder_is_for_one_platform_at_a_time(tmp_path: Path) -> None:
    with (
        locked(tmp_path),
        pytest.raises(FolderInUse, match=rf"process {os.getpid()}.*--data-dir"),
        locked(tmp_path),
    ):
        pass


def test_a_folder_is_free_again_afterwards(tmp_path: Path) -> None:
    with locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_a_new_folder_is_its_owners_alone(tmp_path: Path) -> None:
    with locked(tmp_path / "new" / "data"):
        assert (tmp_path / "new" / "data").stat().st_mode & 0o777 == 0o700


def test_secrets_are_made_once_and_only_their_owner_can_read_them(tmp_path: Path) -> None:
    secrets = Secrets.of(tmp_path)

    assert Secrets.of(tmp_path) == secrets
    assert (tmp_path / "secrets.json").stat().st_mode & 0o777 == 0o600


def test_two_folders_have_different_secrets(tmp_path: Path) -> None:
    one, other = Secrets.of(tmp_path / "one"), Secrets.of(tmp_path / "other")

    assert one.s3_secret_key != other.s3_secret_key
    assert one.postgres_password != other.postgres_password
    assert one.nats_password != other.nats_password


def test_other_commands_read_what_a_platform_has_written(tmp_path: Path) -> None:
    RUNNING.write(tmp_path)

    assert Running.read(tmp_path) == RUNNING


def test_where_nothing_runs_there_is_nothing_to_read(tmp_path: Path) -> None:
    assert Running.read(tmp_path) is None


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"STENO_HOME": "/srv/steno", "XDG_DATA_HOME": "/data"}, "/srv/steno"),
        ({"XDG_DATA_HOME": "/data"}, "/data/steno"),
        ({"HOME": "/home/ann"}, "/home/ann/.local/share/steno"),
    ],
)
def test_the_default_folder_is_where_the_user_keeps_data(
    environment: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("STENO_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert default_folder() == Path(folder)
