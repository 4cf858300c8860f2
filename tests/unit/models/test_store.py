"""A model is a name for a folder of files, and its revision tells what is in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from small_models import write_model
from steno.models import Entry, ModelDamaged, ModelNotFound, Store, name_of


def test_a_path_is_a_model_and_its_name_is_that_of_the_folder(store: Store, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "mine")

    model = store.open(str(folder))

    assert (model.name, model.folder) == ("mine", folder)


@pytest.mark.parametrize(
    "name", ["large-v33", "/nowhere/at/all", "", "a/b/c", "../up", "a/", "a/..", "a/b c", "a--b/c"]
)
def test_a_name_that_nobody_knows_is_refused(store: Store, name: str) -> None:
    with pytest.raises(ModelNotFound, match="neither a folder nor"):
        store.find(name)


def test_a_model_that_is_not_here_is_refused_with_the_way_to_get_it(store: Store) -> None:
    with pytest.raises(ModelNotFound, match="steno models pull large-v3"):
        store.open("large-v3")


def test_a_folder_without_a_model_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"model\.bin"):
        store.open(str(tmp_path))


def test_the_same_files_have_the_same_revision_anywhere(store: Store, tmp_path: Path) -> None:
    one, other = (str(write_model(tmp_path / name)) for name in "ab")

    assert store.open(one).revision == store.open(other).revision


def test_another_build_of_a_model_has_another_revision(store: Store, tmp_path: Path) -> None:
    one = write_model(tmp_path / "a")
    other = write_model(tmp_path / "b", model_bin=b"other weights")

    assert store.open(str(one)).revision != store.open(str(other)).revision


def test_a_readme_beside_the_model_does_not_change_it(store: Store, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "a")
    before = store.open(str(folder)).revision
    (folder / "README.md").write_text("how it was made")

    assert store.open(str(folder)).revision == before


def test_a_model_of_the_catalogue_has_the_revision_of_its_repository(
    store: Store, small: Entry
) -> None:
    write_model(store.folder / "small")

    model = store.open("little")

    assert (model.name, model.revision) == ("little", small.revision)


def test_a_file_with_one_other_byte_is_refused_and_named(store: Store, small: Entry) -> None:
    folder = write_model(store.folder / "small")
    weights = bytearray((folder / "model.bin").read_bytes())
    weights[len(weights) // 2] ^= 1
    (folder / "model.bin").write_bytes(weights)

    with pytest.raises(ModelDamaged, match=r"small: model\.bin is not the published one"):
        store.open("small")


def test_a_missing_file_is_refused_and_named(store: Store, small: Entry) -> None:
    (write_model(store.folder / "small") / "tokenizer.json").unlink()

    with pytest.raises(ModelDamaged, match=r"tokenizer\.json is missing"):
        store.open("small")


def test_a_file_that_was_not_published_with_the_model_is_refused(
    store: Store, small: Entry
) -> None:
    (write_model(store.folder / "small") / "preprocessor_config.json").write_text("{}")

    with pytest.raises(ModelDamaged, match=r"preprocessor_config\.json was not published"):
        store.open("small")


def test_what_is_here_is_listed_and_can_be_removed(store: Store, small: Entry) -> None:
    write_model(store.folder / "small")
    write_model(store.folder / "someone--other")
    assert store.names() == ["small", "someone/other"]

    store.remove("small")

    assert store.names() == ["someone/other"]
    with pytest.raises(ModelNotFound, match="small is not in"):
        store.remove("small")


@pytest.mark.parametrize(
    ("model", "name"), [("large-v3", "large-v3"), ("turbo", "turbo"), ("a/b", "a/b")]
)
def test_what_is_no_path_is_its_own_name(model: str, name: str) -> None:
    assert name_of(model) == name


def test_what_a_link_in_the_store_leads_to_is_not_removed(store: Store, published: Path) -> None:
    store.folder.mkdir()
    (store.folder / "tiny").symlink_to(published)

    store.remove("tiny")

    assert store.find("tiny") is None
    assert (published / "model.bin").is_file()


def test_what_was_left_of_a_replaced_model_is_removed_with_it(store: Store) -> None:
    write_model(store.folder / "tiny")
    write_model(store.folder / ".tiny.old")

    store.remove("tiny")

    assert [path.name for path in store.folder.iterdir()] == [".tiny.lock"]
