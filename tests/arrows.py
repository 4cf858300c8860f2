"""Who may call whom: the arrows of the architecture's picture, and those of the chart only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

CLIENTS, MONITORING = {"role": "clients"}, {"role": "monitoring"}
WHO = {
    "networkPolicy": {
        "clients": [{"namespaceSelector": {"matchLabels": CLIENTS}}],
        "monitoring": [{"namespaceSelector": {"matchLabels": MONITORING}}],
    }
}

ARCHITECTURE = Path(__file__).parents[1] / "docs" / "architecture.md"
NAMES = {"pg": "postgres", "transcription": "transcription-default"}
"""Components whose names are others in the picture."""
PORTS = {
    "upload": 50051,
    "job": 50052,
    "transcription-default": 50053,
    "concatenation": 50054,
    "postgres": 5432,
    "nats": 4222,
    "s3": 8333,
}

Arrow = tuple[str, str, int]


def picture() -> Iterator[Arrow]:
    """The arrows of the architecture's first picture: who calls whom, on which port."""
    _, drawn = ARCHITECTURE.read_text().split("```mermaid\n", 1)
    for line in drawn.partition("```")[0].splitlines():
        for ends in pairwise(re.split(r" (?:-- [^>]+ )?--[->] ", line.strip())):
            source, target = (NAMES.get(end, end) for end in ends)
            # Who takes messages of NATS asks for them.
            source, target = (target, source) if source == "nats" else (source, target)
            yield source, target, PORTS[target]


SERVICES = ("upload", "prepare", "job", "transcription-default", "concatenation")
ARROWS = {
    *picture(),
    # What is of the chart only.
    ("test", "upload", 50051),
    ("test", "job", 50052),
    ("migrate", "postgres", 5432),
    *(("prometheus", each, 9090) for each in SERVICES),
}
