"""`python -m fuzz SECONDS [TARGET ...]`: atheris looks for bytes that make a target fail.

Guided by what of our code they reach. What it finds stands in `.fuzz/TARGET`, and is where the next
run begins; bytes that make a target fail are kept beside it, as `TARGET-crash-...`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOUND = Path(__file__).parents[2] / ".fuzz"
MOST_BYTES = 4096
HANGS_AFTER_SECONDS = 20


def run(name: str, seconds: int) -> int:
    """Fuzzes a target in a process of its own, which atheris ends; returns its exit status."""
    return subprocess.run(
        [sys.executable, "-m", "fuzz", "--one", name, str(seconds)], check=False
    ).returncode


def fuzz(name: str, seconds: int) -> None:
    """Fuzzes a target in this process, and ends it."""
    import atheris

    with atheris.instrument_imports(include=["steno"]):
        from fuzz.targets import TARGETS

    target, folder = TARGETS[name], FOUND / name
    folder.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(target.seeds):
        (folder / f"seed-{number}").write_bytes(content)
    options = {
        "max_total_time": seconds,
        "max_len": MOST_BYTES,
        "timeout": HANGS_AFTER_SECONDS,
        "artifact_prefix": f"{FOUND / name}-",
        "print_final_stats": 1,
    }
    arguments = [f"-{option}={value}" for option, value in options.items()]
    atheris.Setup([sys.argv[0], *arguments, str(folder)], target.parse)
    atheris.Fuzz()


def main() -> None:
    """Fuzzes each target for so long."""
    if sys.argv[1] == "--one":
        fuzz(sys.argv[2], int(sys.argv[3]))
        return
    from fuzz.targets import TARGETS

    failed = []
    for name in sys.argv[2:] or TARGETS:
        print(f"--- {name}", flush=True)
        if run(name, int(sys.argv[1])):
            failed.append(name)
    sys.exit(f"these failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
