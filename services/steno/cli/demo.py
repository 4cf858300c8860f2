"""`steno demo`: the whole platform in a temporary folder, for one recording."""

from __future__ import annotations

import argparse
import re
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import steno
from steno.cli.failures import CliError, Exit

if TYPE_CHECKING:
    from steno.cli.connection import Services

RECORDING = Path("examples/audio/lighthouse.opus")


def run(options: argparse.Namespace) -> int:
    """Starts everything, transcribes a recording and streams it live, and stops everything."""
    from steno.local.up import until_told_to_stop

    recording = find_recording()
    said = words_of(recording.with_suffix(".txt").read_text())
    return until_told_to_stop(_run(options, recording, said))


async def _run(options: argparse.Namespace, recording: Path, said: list[str]) -> int:
    from steno.cli.__main__ import parser
    from steno.cli.connection import PATIENCE_SECONDS, Addresses, Services
    from steno.cli.live import open_source, stream
    from steno.cli.reading import in_reader
    from steno.cli.transcribe import transcribe
    from steno.local.supervisor import Platform, services
    from steno.local.up import say
    from steno.models import DEFAULT

    file = parser().parse_args(["transcribe", str(recording), "--format", "vtt"])
    live = parser().parse_args(["live", str(recording)])
    file.json = options.json
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="steno-demo-", ignore_cleanup_errors=True)
        )
        platform = Platform(Path(folder), services([DEFAULT], 1), port_base=0, say=say)
        await stack.enter_async_context(platform)
        addresses = Addresses.running(platform.addresses, folder)
        own = Services(addresses, PATIENCE_SECONDS, stack)
        say(f"transcribing {recording.name} with {DEFAULT}")
        code = await transcribe(own, file, lasting=False)
        if code == 0 and not options.json:
            say(await _compared(own, said))
            say("the same once more, as a live session")
            source = await in_reader(open_source, str(recording), False)
            code = await stream(own, source, live, lasting=False)
        say("stopping")
        return code


async def _compared(services: Services, said: list[str]) -> str:
    """How much of what was said the newest job has understood."""
    from steno.cli.transcripts import get_transcript
    from steno.v1.job_pb2 import ListJobsRequest

    stub = await services.jobs()
    jobs = (await services.call("job", stub.ListJobs, ListJobsRequest(page_size=1))).jobs
    errors = word_errors(said, words_of(await get_transcript(services, jobs[0].job_id, "txt")))
    return f"{errors} of {len(said)} words are wrong: a word error rate of {errors / len(said):.1%}"


def word_errors(said: list[str], heard: list[str]) -> int:
    """Words that were inserted, left out or replaced (Levenshtein's distance)."""
    row = list(range(len(heard) + 1))
    for line, word in enumerate(said, 1):
        corner, row[0] = row[0], line
        for column, other in enumerate(heard, 1):
            changed = corner + (word != other)
            corner, row[column] = row[column], min(changed, row[column] + 1, row[column - 1] + 1)
    return row[-1]


def words_of(text: str) -> list[str]:
    """Words without capitals and signs."""
    return re.findall(r"[\w']+", text.lower())


def find_recording() -> Path:
    """The demo's recording. Raises CliError where it is not: outside of the repository."""
    for root in (Path.cwd(), *Path(steno.__file__).resolve().parents):
        if (root / RECORDING).is_file():
            return root / RECORDING
    raise CliError(
        f"{RECORDING} is not here; it comes with the repository, not with the package",
        Exit.USAGE,
        hint="elsewhere: steno up, then steno transcribe FILE",
    )
