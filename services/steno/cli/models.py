"""`steno models`: what speech can be recognised with, here and in the catalogue."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from steno import models
from steno.cli.connection import Services, connect
from steno.cli.failures import CliError, Exit, report
from steno.cli.rendering import fields, print_json, print_table, say, size
from steno.v1.transcript_pb2 import ModelInfo
from steno.v1.transcription_pb2 import ListModelsRequest


async def list_served(options: argparse.Namespace) -> int:
    """Prints the models that are served."""
    async with connect(options) as services:
        served = await _served(services)
    if options.json:
        print_json({"models": [fields(model) for model in served]})
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
            for model in served
        ),
    )
    return 0


def list_known(options: argparse.Namespace) -> int:
    """Prints the catalogue, and what else is on this machine."""
    store = models.store_at(options.model_dir or "")
    with _as_cli_errors():
        here = {name: str(store.find(name) or "") for name in store.names()}
    known = models.entries()
    others = [name for name in here if models.entry_of(name) is None]
    if options.json:
        print_json(
            {
                "models": [
                    {
                        "name": entry.name,
                        "aliases": list(entry.aliases),
                        "repository": entry.repository,
                        "revision": entry.revision,
                        "license": entry.license,
                        "language_count": entry.languages,
                        "sources": _sources(entry),
                        "files": [
                            {"path": file.path, "size_bytes": file.size, "sha256": file.sha256}
                            for file in entry.files
                        ],
                        "folder": here.get(entry.name, ""),
                    }
                    for entry in known
                ]
                + [{"name": name, "folder": here[name]} for name in others]
            }
        )
        return 0
    rows: list[tuple[str, ...]] = [
        (
            entry.name,
            "yes" if entry.name in here else "",
            size(entry.size) if entry.size else "",
            "en" if entry.languages == 1 else f"{entry.languages} languages",
            entry.license,
            entry.revision[:12],
            "all" if entry.is_complete else "weights" if entry.files else "first pull",
            ", ".join(_sources(entry)),
        )
        for entry in known
    ]
    rows += [(name, "yes", *[""] * 6) for name in others]
    heads = ("MODEL", "HERE", "WEIGHTS", "LANGUAGES", "LICENSE", "REVISION", "DIGESTS", "FROM")
    print_table(heads, rows)
    return 0


def pull(options: argparse.Namespace) -> int:
    """Fetches models; prints the folder of each."""
    from steno.models.pull import pull as fetch

    store = models.store_at(options.model_dir or "")
    bars = sys.stderr.isatty() and not options.json
    pulled = []
    for name in options.names:
        with _as_cli_errors():
            model = fetch(
                store, name, options.source, lambda line: say(f"steno: {line}"), bars=bars
            )
        say(f"steno: {model.name} is here and whole, revision {model.revision[:12]}")
        if not options.json:
            print(model.folder, flush=True)
        pulled.append(_as_json(model))
    if options.json:
        print_json({"models": pulled})
    return 0


def verify(options: argparse.Namespace) -> int:
    """Holds models against what was published; all that are here, unless some are named."""
    store = models.store_at(options.model_dir or "")
    whole, code = [], Exit.DONE
    with _as_cli_errors():
        names = options.names or store.names()
    for name in names:
        try:
            with _as_cli_errors():
                model = store.open(name)
        except CliError as error:
            report(error, options.json)
            code = max(code, error.code)
            continue
        whole.append(_as_json(model))
        if not options.json:
            print(f"{model.name}  {model.revision[:12]}  whole", flush=True)
    if options.json:
        print_json({"models": whole})
    return int(code)


def remove(options: argparse.Namespace) -> int:
    """Removes what was pulled."""
    store = models.store_at(options.model_dir or "")
    for name in options.names:
        with _as_cli_errors():
            store.remove(name)
    return 0


async def _served(services: Services) -> Sequence[ModelInfo]:
    stub = await services.transcription()
    answer = await services.call("transcription", stub.ListModels, ListModelsRequest())
    return answer.models


@contextmanager
def _as_cli_errors() -> Iterator[None]:
    try:
        yield
    except models.ModelNotFound as error:
        raise CliError(str(error), Exit.USAGE, reason="MODEL_NOT_FOUND") from error
    except models.ModelDamaged as error:
        raise CliError(str(error), Exit.REFUSED, reason="MODEL_DAMAGED") from error
    except models.ModelError as error:
        raise CliError(str(error), Exit.FAILED, reason="PULL_FAILED") from error
    except OSError as error:
        raise CliError(f"{error.filename or 'the models'}: {error.strerror or error}") from error


def _as_json(model: models.Model) -> dict[str, str]:
    return {"name": model.name, "revision": model.revision, "folder": str(model.folder)}


def _sources(entry: models.Entry) -> list[str]:
    return ["hub", *(["index"] if entry.wheels else [])]


def _languages(codes: list[str]) -> str:
    return " ".join(codes) if len(codes) <= 8 else f"{len(codes)} languages"
