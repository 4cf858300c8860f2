"""Runs the examples of a document again and writes down what they print now.

    steno up &  python tools/run_examples.py docs/cli.md

In each ```console block the lines that begin with `$ ` are commands; what stands between them is
their output and is replaced. One shell runs them all, in the folder in which this is started.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import IO

LINES = 24
WIDTH = 160
END = "\x1e"


class Shell:
    """A shell that keeps its variables from one command to the next."""

    def __init__(self) -> None:
        self._bash = subprocess.Popen(
            ["bash"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, command: str) -> list[str]:
        """Returns the lines that a command prints; `$?` is left as the command leaves it."""
        stdin, stdout = self._pipes()
        stdin.write(f"{{ {command}\n}} </dev/null\n__=$?; echo; echo {END}; (exit $__)\n")
        stdin.flush()
        lines: list[str] = []
        while (line := stdout.readline().rstrip("\n")) != END:
            lines.append(line)
        return lines

    def close(self) -> None:
        self._pipes()[0].close()
        self._bash.wait()

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        return self._bash.stdin, self._bash.stdout


def shortened(lines: list[str]) -> list[str]:
    """Without empty lines at the end, and no longer than a reader wants."""
    while lines and not lines[-1]:
        lines = lines[:-1]
    lines = [line if len(line) <= WIDTH else line[:WIDTH] + "..." for line in lines]
    return lines if len(lines) <= LINES else [*lines[: LINES - 4], "..."]


def renewed(document: str, shell: Shell) -> str:
    """The document with today's outputs."""

    def block(found: re.Match[str]) -> str:
        lines = ["```console"]
        for command in re.findall(r"^\$ (.*)$", found[1], flags=re.MULTILINE):
            lines += [f"$ {command}", *shortened(shell.run(command))]
            print(command, file=sys.stderr)
        return "\n".join([*lines, "```"])

    return re.sub(r"```console\n(.*?)```", block, document, flags=re.DOTALL)


def main() -> None:
    shell = Shell()
    for path in map(Path, sys.argv[1:]):
        path.write_text(renewed(path.read_text(), shell))
    shell.close()


if __name__ == "__main__":
    main()
