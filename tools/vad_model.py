"""Copies the voice activity detector from faster-whisper's wheel into `steno.audio`.

`python tools/vad_model.py` takes it from the wheel that is installed here, and holds it against the
digest that the wheel states; `--check` only compares.
"""

from __future__ import annotations

import base64
import hashlib
import sys
from importlib.metadata import distribution
from pathlib import Path

IN_WHEEL = "faster_whisper/assets/silero_vad_v6.onnx"
COPY = Path(__file__).parent.parent / "services" / "steno" / "audio" / "silero_vad_v6.onnx"


def in_wheel() -> tuple[Path, str]:
    """Where the model lies, and the SHA-256 that the wheel states of it, in hex."""
    for file in distribution("faster-whisper").files or ():
        if str(file) == IN_WHEEL and file.hash is not None and file.hash.mode == "sha256":
            stated = base64.urlsafe_b64decode(file.hash.value + "=")
            return Path(str(file.locate())), stated.hex()
    raise SystemExit(f"the installed faster-whisper has no {IN_WHEEL}; look at its new name")


def main() -> int:
    path, stated = in_wheel()
    if "--check" not in sys.argv[1:]:
        COPY.write_bytes(path.read_bytes())
    found = hashlib.sha256(COPY.read_bytes()).hexdigest()
    if found != stated:
        print(f"{COPY} is not the wheel's: its SHA-256 is {found}, not {stated}", file=sys.stderr)
    return found != stated


if __name__ == "__main__":
    sys.exit(main())
