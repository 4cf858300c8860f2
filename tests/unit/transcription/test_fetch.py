"""A model can be fetched apart from the worker that serves it."""

import subprocess
import sys
from pathlib import Path


def fetch(model: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "steno.transcription.fetch", model, str(folder)],
        capture_output=True,
        text=True,
    )


def test_it_says_where_the_files_are(tmp_path: Path) -> None:
    fetched = fetch("builtin", tmp_path)

    assert fetched.returncode == 0
    assert (Path(fetched.stdout.strip()) / "model.bin").is_file()


def test_a_model_that_nobody_knows_is_one_line(tmp_path: Path) -> None:
    fetched = fetch("large-v33", tmp_path)

    assert fetched.returncode == 1
    assert fetched.stderr.startswith("fetch: large-v33 is neither")
    assert fetched.stderr.count("\n") == 1
