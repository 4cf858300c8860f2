"""What the documents say is true of the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from steno.job.domain import JOB_MOVES, TASK_MOVES

ROOT = Path(__file__).parents[2]
RECIPES = [*ROOT.glob("docs/how-to/*.md")]


def test_the_table_of_settings_is_that_of_the_code() -> None:
    checked = subprocess.run(
        [sys.executable, ROOT / "tools" / "configuration.py", "--check"], capture_output=True
    )

    assert checked.returncode == 0, checked.stderr.decode()


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_what_a_recipe_changes_is_there_to_be_changed(recipe: Path) -> None:
    changes = re.findall(r"^```diff\n(.*?)^```", recipe.read_text(), re.DOTALL | re.MULTILINE)

    applied = subprocess.run(
        ["git", "apply", "--check", "-"],
        cwd=ROOT,
        input="".join(changes).encode(),
        capture_output=True,
    )

    assert changes
    assert applied.returncode == 0, applied.stderr.decode()


def drawn(machine: str) -> set[tuple[str, str]]:
    """The moves of a state machine in the architecture's picture."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    picture = re.search(rf"state {machine} \{{(.*?)\n    \}}", text, re.DOTALL)
    assert picture is not None
    moves = re.findall(r"^\s*([A-Z_]+) --> ([A-Z_]+)", picture[1], re.MULTILINE)
    return {(start.removesuffix("_TASK"), end.removesuffix("_TASK")) for start, end in moves}


def test_the_picture_of_the_states_is_that_of_the_code() -> None:
    job = {(str(start), str(end)) for start, ends in JOB_MOVES.items() for end in ends}
    task = {(str(start), str(end)) for start, ends in TASK_MOVES.items() for end in ends}

    assert drawn("Job") == job
    assert drawn("Task") == task


def test_every_link_in_the_documents_leads_somewhere() -> None:
    documents = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    broken = [
        f"{document.relative_to(ROOT)}: {target}"
        for document in documents
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text())
        if not (document.parent / target).exists()
    ]

    assert broken == []
