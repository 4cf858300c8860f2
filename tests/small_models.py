"""Models of a few kilobytes, in folders and in packages."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

FILES = {
    "config.json": b"{}",
    "model.bin": bytes(range(256)) * 400,
    "tokenizer.json": b'{"model": {}}',
    "vocabulary.txt": b"one\ntwo\n",
}


def write_model(folder: Path, **changed: bytes) -> Path:
    """Writes a small model; `model_bin=` and so on change a file."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in FILES.items():
        (folder / name).write_bytes(changed.get(name.replace(".", "_"), content))
    return folder


def write_wheel(folder: Path, name: str, files: dict[str, bytes]) -> str:
    """Writes a package; returns its requirement with its digest."""
    info = f"{name}-1.0.dist-info"
    about = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as package:
        record = ""
        for path, content in (files | about).items():
            package.writestr(path, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
            record += f"{path},sha256={digest.decode()},{len(content)}\n"
        package.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")
    return f"{name}==1.0 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}"
