"""`steno models`: what speech can be recognised with."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import suppress

from steno.cli.connection import Services, connect
from steno.cli.failures import CliError
from steno.cli.rendering import fields, print_json, print_table, say
from steno.v1.transcript_pb2 import ModelInfo
from steno.v1.transcription_pb2 import ListModelsRequest

BUILTIN = "builtin"
BUILTIN_HINT = (
    "steno: the built-in model knows only a few hundred words of synthetic speech; "
    "for real recordings: steno up --model small"
)


async def list_models(options: argparse.Namespace) -> int:
    """Prints the models that are served."""
    async with connect(options) as services:
        models = await _served(services)
    if options.json:
        print_json({"models": [fields(model) for model in models]})
        return 0
    print_table(
        ("MODEL", "REVISION", "COMPUTES IN", "ON", "LANGUAGES"),
        (
            (
                model.name + (" (default)" if model.is_default else ""),
                model.revision[:12],
                model.compute_type,
                model.device,
                _languages(list(model.language_codes)),
            )
            for model in models
        ),
    )
    return 0


async def hint_at_builtin(services: Services) -> None:
    """Says so if the default is the built-in model; nothing if nobody answers."""
    with suppress(CliError):
        models = await _served(services, patience=0.0)
        if any(model.is_default and model.name == BUILTIN for model in models):
            say(BUILTIN_HINT)


async def _served(services: Services, *, patience: float | None = None) -> Sequence[ModelInfo]:
    stub = await services.transcription()
    request = ListModelsRequest()
    answer = await services.call("transcription", stub.ListModels, request, patience=patience)
    return answer.models


def _languages(codes: list[str]) -> str:
    return " ".join(codes) if len(codes) <= 8 else f"{len(codes)} languages"
