"""`steno models`: what speech can be recognised with."""

from __future__ import annotations

import argparse

from steno.cli.connection import connect
from steno.cli.rendering import fields, print_json, print_table
from steno.v1.transcription_pb2 import ListModelsRequest


async def list_models(options: argparse.Namespace) -> int:
    """Prints the models that are served."""
    async with connect(options) as services:
        stub = await services.transcription()
        request = ListModelsRequest()
        models = (await services.call("transcription", stub.ListModels, request)).models
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


def _languages(codes: list[str]) -> str:
    return " ".join(codes) if len(codes) <= 8 else f"{len(codes)} languages"
