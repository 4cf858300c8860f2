"""Generates services/steno/v1 from proto/ whenever the package is built or installed."""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent
TARGET = ROOT / "services" / "steno" / "v1"


def generate(root: Path = ROOT) -> None:
    """Writes messages, stubs and their types for every proto file.

    Raises:
        RuntimeError: protoc refused a file; it has printed why.
    """
    from grpc_tools import protoc

    source, target = root / "proto", root / "services"
    TARGET.mkdir(parents=True, exist_ok=True)
    for stale in TARGET.glob("*_pb2*"):
        stale.unlink()
    # The type plugins are scripts of the same environment, which need not be on PATH.
    scripts = Path(sys.executable).parent
    code = protoc.main(
        [
            "protoc",
            f"--plugin=protoc-gen-mypy={scripts / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={scripts / 'protoc-gen-mypy_grpc'}",
            f"-I{source}",
            f"-I{files('grpc_tools') / '_proto'}",
            f"--python_out={target}",
            f"--grpc_python_out={target}",
            f"--mypy_out=quiet:{target}",
            f"--mypy_grpc_out=quiet:{target}",
            *map(str, sorted(source.rglob("*.proto"))),
        ]
    )
    if code:
        raise RuntimeError("protoc failed")
    (TARGET / "__init__.py").write_text('"""Generated from proto/steno/v1. Do not edit."""\n')
    (TARGET / "py.typed").touch()


class ProtoBuildHook(BuildHookInterface[Any]):
    """Runs before hatchling collects the files of a wheel or an editable install."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Generates the code and has it packed although git ignores it."""
        generate()
        build_data["artifacts"].append("services/steno/v1/*")


if __name__ == "__main__":
    generate()
