"""The commands: ``python -m model.training <command> --help``."""

from __future__ import annotations

import argparse
from pathlib import Path

MODEL = Path("tests/model/builtin-en")


def main() -> None:
    """Parses the command line and runs one command."""
    parser = argparse.ArgumentParser(prog="python -m model.training", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path(".model"), help="corpus and checkpoint")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("words", help="check that no two words sound alike")
    speak = commands.add_parser("corpus", help="speak the sentences for training")
    speak.add_argument("--parts", type=int, default=25, help="of about 2.7 hours each")
    speak.add_argument("--processes", type=int, default=2)
    speak.add_argument("--seed", type=int, default=7)
    train = commands.add_parser("train", help="train, or go on training")
    refine = commands.add_parser("refine", help="train what training came to once more")
    for command, minutes in ((train, 240), (refine, 90)):
        command.add_argument("--minutes", type=float, default=minutes, help="default %(default)s")
        command.add_argument("--threads", type=int, default=2)
        command.add_argument("--seed", type=int, default=7)
    refine.add_argument(
        "--times", type=int, default=3, help="until it is refined so often; default %(default)s"
    )
    convert = commands.add_parser("convert", help="write the model's folder")
    convert.add_argument("--out", type=Path, default=MODEL)
    measure = commands.add_parser("evaluate", help="print the table of the model card")
    measure.add_argument("--model", type=Path, default=MODEL)
    measure.add_argument("--recordings", type=int, default=24)
    measure.add_argument("--threads", type=int, default=2)
    measure.add_argument("--minutes", type=int, default=30, help="of the long recording")
    measure.add_argument("--card", action="store_true", help="write the table into the card")
    samples = commands.add_parser("samples", help="make examples/audio and the tests' audio")
    samples.add_argument("--examples", type=Path, default=Path("examples/audio"))
    samples.add_argument("--tests", type=Path, default=Path("tests/model/data"))
    options = parser.parse_args()

    if options.command == "words":
        from . import vocabulary

        vocabulary.check()
    elif options.command == "corpus":
        from . import corpus

        corpus.make(options.work / "corpus", range(options.parts), options.seed, options.processes)
    elif options.command in ("train", "refine"):
        from .train import train as run

        for refining in range(1, options.times + 1) if options.command == "refine" else (0,):
            run(
                options.work / "corpus", options.work, options.minutes, options.seed,
                options.threads, refining=refining,
            )  # fmt: skip
    elif options.command == "convert":
        from .convert import convert as write

        write(options.work / "checkpoint.pt", options.out)
    elif options.command == "evaluate":
        from .evaluate import evaluate

        evaluate(
            options.model, options.recordings, options.minutes, options.threads, card=options.card
        )
    elif options.command == "samples":
        from .samples import examples, test_data

        examples(options.examples)
        test_data(options.tests)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("stopped; the same command goes on from what is saved") from None
