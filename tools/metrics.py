"""Writes the table of docs/metrics.md from the metrics that the processes have.

`python tools/metrics.py` rewrites the part between the markers; `--check` only compares.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

DOCUMENT = Path(__file__).parent.parent / "docs" / "metrics.md"
BEGIN, END = "<!-- metrics: begin -->", "<!-- metrics: end -->"

PROCESSES = {
    "upload": "steno.upload.__main__",
    "prepare": "steno.upload.prepare",
    "job": "steno.job.__main__",
    "transcription": "steno.transcription.__main__",
}

# Run in an interpreter that has imported one process only.
LIST = """
import importlib, json, sys
from prometheus_client import REGISTRY
importlib.import_module(sys.argv[1])
print(json.dumps([
    [metric._name, metric._type, metric._labelnames, metric._documentation]
    for metric in dict.fromkeys(REGISTRY._collector_to_names) if hasattr(metric, "_labelnames")
]))
"""


class Metric(NamedTuple):
    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str

    @property
    def shown(self) -> str:
        """The name that queries use."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


def metrics_of(process: str) -> list[Metric]:
    listed = subprocess.run(
        [sys.executable, "-c", LIST, PROCESSES[process]], check=True, capture_output=True
    )
    return [
        Metric(name, kind, tuple(labels), text)
        for name, kind, labels, text in json.loads(listed.stdout)
    ]


def table() -> str:
    """One row for each metric, with the processes that have it."""
    found: dict[Metric, list[str]] = {}
    for process in PROCESSES:
        for metric in metrics_of(process):
            found.setdefault(metric, []).append(process)
    lines = ["| metric | kind | labels | process | meaning |", "| --- | --- | --- | --- | --- |"]
    for metric, processes in sorted(found.items()):
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        who = "all" if processes == [*PROCESSES] else ", ".join(processes)
        lines.append(f"| `{metric.shown}` | {metric.kind} | {labels} | {who} | {metric.meaning} |")
    return "\n".join(lines)


def main() -> None:
    document = DOCUMENT.read_text()
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    new = pattern.sub(lambda _: f"{BEGIN}\n{table()}\n{END}", document)
    if "--check" in sys.argv:
        sys.exit(document != new and "docs/metrics.md is stale: run python tools/metrics.py")
    DOCUMENT.write_text(new)


if __name__ == "__main__":
    main()
