"""What was measured: medians of ratios, as a table, as JSON and as a picture."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class Result:
    """One ratio.

    Attributes:
        row: number of the row.
        name: what is divided by what.
        ratio: median over the rounds.
        reach: the value to come to.
        at_most: whether smaller is better.
        low: smallest of the rounds.
        high: largest of the rounds.
        detail: the absolute numbers behind it, for people.
        rounds: how often it was measured.
        load: of the machine before the first row of that run (1 min average); None: not noted.
    """

    row: int
    name: str
    ratio: float
    reach: float
    at_most: bool
    low: float
    high: float
    detail: str
    rounds: int = 1
    load: float | None = None

    @property
    def reached(self) -> bool:
        """The value is reached."""
        return self.ratio <= self.reach if self.at_most else self.ratio >= self.reach


def result(
    row: int,
    name: str,
    ratios: Sequence[float],
    reach: float,
    detail: str = "",
    *,
    at_most: bool = False,
) -> Result:
    """Sums up the rounds of one ratio."""
    middle = statistics.median(ratios)
    return Result(row, name, middle, reach, at_most, min(ratios), max(ratios), detail, len(ratios))


def table(results: Sequence[Result]) -> str:
    """As Markdown."""
    lines = [
        "| # | ratio | measured | spread | reach | reached | rounds | load before | behind it |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for each in results:
        sign = "<=" if each.at_most else ">="
        load = "" if each.load is None else f"{each.load:.1f}"
        lines.append(
            f"| {each.row} | {each.name} | {each.ratio:.2f} | {each.low:.2f}-{each.high:.2f} "
            f"| {sign} {each.reach:g} | {'yes' if each.reached else 'no'} | {each.rounds} | {load} "
            f"| {each.detail} |"
        )
    return "\n".join(lines) + "\n"


def known(folder: Path) -> list[Result]:
    """What is written in a folder already."""
    file = folder / "results.json"
    rows = json.loads(file.read_text()) if file.exists() else []
    names = {field.name for field in fields(Result)}
    return [Result(**{name: row[name] for name in names & row.keys()}) for row in rows]


def write(results: Sequence[Result], folder: Path, about: str) -> None:
    """Writes results.md, results.json and results.svg."""
    (folder / "results.md").write_text(
        f"# Measured with `make bench`\n\n{about}\n\n{table(results)}"
    )
    rows = [asdict(each) | {"reached": each.reached} for each in results]
    (folder / "results.json").write_text(json.dumps(rows, indent=2) + "\n")
    (folder / "results.svg").write_text(picture(results))


def picture(results: Sequence[Result]) -> str:
    """A bar for each ratio, as a share of what is to be reached; longer is always better."""
    width, height, left, unit = 760, 30, 420, 150
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" '
        f'height="{height * (len(results) + 1)}" font-family="sans-serif" font-size="12">',
        f'<line x1="{left + unit}" x2="{left + unit}" y1="0" y2="{height * len(results)}" '
        'stroke="#888" stroke-dasharray="3"/>',
        f'<text x="{left + unit}" y="{height * len(results) + 18}" text-anchor="middle">'
        "to be reached</text>",
    ]
    for number, each in enumerate(results):
        share = each.reach / each.ratio if each.at_most else each.ratio / each.reach
        y = number * height
        colour = "#2a7" if each.reached else "#c63"
        length = min(share, 2.0) * unit
        lines += [
            f'<text x="4" y="{y + 19}">{_escaped(f"{each.row} {each.name}")}</text>',
            f'<rect x="{left}" y="{y + 6}" width="{length:.0f}" height="18" fill="{colour}"/>',
            f'<text x="{left + length + 4:.0f}" y="{y + 19}">{each.ratio:.2f}</text>',
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
