"""A model is a name for a folder of files, and its revision tells what is in them."""

from pathlib import Path

import pytest

from steno.transcription.domain import ModelNotFound
from steno.transcription.models import BUILTIN, locate, revision


def make_model(folder: Path, weights: bytes = b"weights") -> Path:
    folder.mkdir()
    (folder / "model.bin").write_bytes(weights)
    (folder / "config.json").write_text("{}")
    return folder


def test_the_builtin_model_is_in_the_package() -> None:
    assert (locate(BUILTIN) / "tokenizer.json").is_file()


def test_a_path_is_a_model(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "mine")

    assert locate(str(folder)) == folder


@pytest.mark.parametrize("name", ["large-v33", "/nowhere/at/all", "", "a/b/c"])
def test_a_name_that_nobody_knows_is_refused_before_any_download(name: str) -> None:
    with pytest.raises(ModelNotFound):
        locate(name)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"model\.bin"):
        locate(str(tmp_path))


def test_the_same_files_have_the_same_revision_anywhere(tmp_path: Path) -> None:
    assert revision(make_model(tmp_path / "a")) == revision(make_model(tmp_path / "b"))


def test_another_build_of_a_model_has_another_revision(tmp_path: Path) -> None:
    one, other = make_model(tmp_path / "a"), make_model(tmp_path / "b", b"other weights")

    assert revision(one) != revision(other)


def test_a_readme_beside_the_model_does_not_change_it(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "a")
    before = revision(folder)
    (folder / "README.md").write_text("how it was made")

    assert revision(folder) == before
