"""Writes the table of settings in README.md from the settings themselves.

`python tools/configuration.py` rewrites the part between the markers; `--check` only compares.
"""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path
from typing import get_args

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- configuration: begin -->", "<!-- configuration: end -->"

SETTINGS = {
    "upload": "steno.upload.settings:Settings",
    "prepare": "steno.upload.settings:PrepareSettings",
    "job": "steno.job.settings:Settings",
    "transcription": "steno.transcription.settings:Settings",
    "concatenation": "steno.concatenation.settings:Settings",
}


def default_of(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "computed"
    if field.default is PydanticUndefined:
        return "required"
    default = field.default
    if isinstance(default, SecretStr):
        default = default.get_secret_value()
    if default == "" or default is None:
        return "empty"
    if isinstance(default, (list, tuple)):
        return f"`{','.join(map(str, default))}`"
    return f"`{default}`"


def table() -> str:
    """One row for each variable, with the processes that read it."""
    rows: dict[str, tuple[str, str, list[str]]] = {}
    for process, place in SETTINGS.items():
        module, name = place.split(":")
        for field_name, field in getattr(import_module(module), name).model_fields.items():
            variable = f"STENO_{field_name.upper()}"
            text = " ".join((field.description or "").split())
            choices = get_args(field.annotation)
            if choices and all(isinstance(choice, str) for choice in choices):
                text += f" One of {', '.join(f'`{choice}`' for choice in choices)}."
            default = default_of(field)
            _, known, processes = rows.setdefault(variable, (text, default, []))
            processes.append(process if default == known else f"{process} ({default})")
    lines = ["| variable | default | read by | meaning |", "| --- | --- | --- | --- |"]
    for variable, (text, default, processes) in sorted(rows.items()):
        readers = "all" if processes == [*SETTINGS] else ", ".join(processes)
        lines.append(f"| `{variable}` | {default} | {readers} | {text} |")
    return "\n".join(lines)


def rewritten(readme: str) -> str:
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    return pattern.sub(lambda _: f"{BEGIN}\n{table()}\n{END}", readme)


def main() -> None:
    readme = README.read_text()
    new = rewritten(readme)
    if "--check" in sys.argv:
        sys.exit(readme != new and "README.md is stale: run python tools/configuration.py")
    README.write_text(new)


if __name__ == "__main__":
    main()
