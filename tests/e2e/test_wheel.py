"""Who installs the package needs nothing of its source."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from folders import server_folder
from platform_client import EXAMPLES
from scoring import word_error_rate, words_of

ROOT = Path(__file__).parents[2]
PARTS = ("services", "proto", "pyproject.toml", "hatch_build.py", "README.md", "LICENSE")

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def bin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an environment with the wheel and what it needs, and nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(
                ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__", "v1/*.py*")
            )
        else:
            shutil.copy(ROOT / part, source)
    build = ("-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder))
    subprocess.run([sys.executable, *build], cwd=source, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    shutil.rmtree(source)
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    bin = folder / "venv" / "bin"
    pip = (bin / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    pinned = ROOT / "requirements" / "local.txt"
    subprocess.run([*pip, "--require-hashes", "-r", pinned], check=True)
    subprocess.run([*pip, "--no-deps", wheel], check=True)
    return bin


def test_the_platform_runs_from_a_wheel_in_an_empty_environment(bin: Path, tmp_path: Path) -> None:
    with server_folder() as folder:
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "STENO_HOME": str(folder)}
        with subprocess.Popen(
            [bin / "steno", "up", "--port-base", "0"],
            cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True,
        ) as up:  # fmt: skip
            try:
                assert up.stdout is not None
                assert any("ready after" in line for line in up.stdout)
                heard = subprocess.run(
                    [bin / "steno", "transcribe", EXAMPLES / "forecast.opus"],
                    cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
                )  # fmt: skip
            finally:
                up.send_signal(signal.SIGTERM)
                status = up.wait(60)

    said = words_of((EXAMPLES / "forecast.txt").read_text())
    assert word_error_rate(said, words_of(heard.stdout)) < 0.1
    assert status == 0
