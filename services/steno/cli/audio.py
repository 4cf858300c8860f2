"""`steno upload` and `steno audio`: stored recordings."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from steno.cli.connection import PATIENCE_SECONDS, connect
from steno.cli.failures import CliError, Exit, report
from steno.cli.progress import Progress
from steno.cli.rendering import (
    audio_state,
    clock,
    fields,
    print_fields,
    print_json,
    print_page,
    size,
    time,
)
from steno.cli.uploading import STDIN, Uploader, check_readable
from steno.v1.upload_pb2 import (
    Audio,
    AudioState,
    DeleteAudioRequest,
    GetAudioRequest,
    GetDownloadUrlRequest,
    ListAudioRequest,
    PreparationFailure,
    RetryAudioRequest,
)

_BLOCK_BYTES = 2**20


async def upload(options: argparse.Namespace) -> int:
    """Uploads files and prints their audio ids, in the order given."""
    for path in options.files:
        check_readable(path)
    async with connect(options, PATIENCE_SECONDS) as services:
        uploader = Uploader(services)
        try:
            with Progress(len(options.files)) as progress:
                return await _upload_all(options, uploader, progress)
        finally:
            uploader.close()


async def _upload_all(options: argparse.Namespace, uploader: Uploader, progress: Progress) -> int:
    async def one(path: str) -> Audio:
        line = progress.line(path)
        try:
            audio = await uploader.upload(path, line.uploading, line.advance)
        except CliError as error:
            line.end(error.message)
            raise error.about(path) from error
        else:
            line.end("uploaded")
            return audio
        finally:
            progress.ended()

    results = await asyncio.gather(*map(one, options.files), return_exceptions=True)
    progress.stop()
    code, done = 0, []
    for result in results:
        if isinstance(result, CliError):
            code = max(code, result.code)
            report(result, options.json)
        elif isinstance(result, BaseException):
            raise result
        else:
            done.append(result)
    if options.json:
        print_json({"audio": [fields(audio) for audio in done]})
    else:
        for audio in done:
            print(audio.audio_id)
    return code


async def list_audio(options: argparse.Namespace) -> int:
    """Prints stored recordings, newest first."""
    async with connect(options) as services:
        stub = await services.uploads()
        request = ListAudioRequest(page_size=options.limit, page_token=options.page_token)
        if options.state:
            request.state = AudioState.Value(f"AUDIO_STATE_{options.state.upper()}")
        response = await services.call("upload", stub.ListAudio, request)
    print_page(
        "audio",
        response.audio,
        response.next_page_token,
        {
            "AUDIO": lambda audio: audio.audio_id,
            "STATE": audio_state,
            "LENGTH": lambda audio: clock(audio.duration),
            "SIZE": lambda audio: size(audio.size_bytes),
            "CREATED": lambda audio: time(audio.create_time),
            "NAME": lambda audio: audio.filename,
        },
        as_json=options.json,
    )
    return 0


async def get(options: argparse.Namespace) -> int:
    """Prints what is known of a recording."""
    async with connect(options) as services:
        stub = await services.uploads()
        request = GetAudioRequest(audio_id=options.audio_id)
        audio = (await services.call("upload", stub.GetAudio, request)).audio
    if options.json:
        print_json(fields(audio))
        return 0
    print_fields(
        {
            "audio": audio.audio_id,
            "name": audio.filename,
            "state": audio_state(audio),
            "rejected": audio.rejection.message,
            "failed": _failure(audio.preparation_failure),
            "length": clock(audio.duration),
            "cut": "the file ends in the middle" if audio.truncated else "",
            "codec": audio.codec,
            "container": audio.container,
            "sample rate": f"{audio.sample_rate_hertz} Hz" if audio.sample_rate_hertz else "",
            "channels": str(audio.channel_count or ""),
            "size": size(audio.size_bytes),
            "sha256": audio.sha256,
            "slices": str(audio.slice_count),
            "created": time(audio.create_time),
        }
    )
    return 0


def _failure(failure: PreparationFailure) -> str:
    """Why a recording is parked, or nothing."""
    if not failure.reason:
        return ""
    tries = f"{failure.failure_count} tries, " if failure.failure_count else ""
    return f"{failure.message} ({tries}next {time(failure.next_attempt_time)})"


async def retry(options: argparse.Namespace) -> int:
    """Has recordings prepared again at once."""
    audio = []
    async with connect(options) as services:
        stub = await services.uploads()
        for audio_id in options.audio_ids:
            request = RetryAudioRequest(audio_id=audio_id)
            audio.append((await services.call("upload", stub.RetryAudio, request)).audio)
    if options.json:
        print_json({"audio": [fields(each) for each in audio]})
    return 0


async def delete(options: argparse.Namespace) -> int:
    """Removes recordings."""
    async with connect(options) as services:
        stub = await services.uploads()
        for audio_id in options.audio_ids:
            request = DeleteAudioRequest(audio_id=audio_id)
            await services.call("upload", stub.DeleteAudio, request)
    if options.json:
        print_json({"deleted": options.audio_ids})
    return 0


def download(options: argparse.Namespace) -> int:
    """Writes the original file to a file or, with `-`, to stdout."""
    audio, url = asyncio.run(_original(options))
    # Outside of the event loop, so that Ctrl-C ends it at once.
    if options.output == STDIN:
        fetch(url, None)
        return 0
    target = _target(options.output, audio)
    fetch(url, target)
    if options.json:
        print_json({"audio_id": audio.audio_id, "file": str(target)})
    else:
        print(target)
    return 0


async def _original(options: argparse.Namespace) -> tuple[Audio, str]:
    """A recording, and where its original file is."""
    async with connect(options) as services:
        stub = await services.uploads()
        about = GetAudioRequest(audio_id=options.audio_id)
        audio = (await services.call("upload", stub.GetAudio, about)).audio
        request = GetDownloadUrlRequest(audio_id=options.audio_id)
        return audio, (await services.call("upload", stub.GetDownloadUrl, request)).url


def _target(output: str | None, audio: Audio) -> Path:
    """Where to write. The name came from somebody else: only its last part counts.

    Raises CliError if a file is there that was not asked for.
    """
    name = Path(audio.filename).name or audio.audio_id
    target = Path(output or name)
    if target.is_dir():
        target /= name
    if target.exists() and not output:
        raise CliError(f"{target} is there already", Exit.USAGE, hint="choose a name with --output")
    return target


def fetch(url: str, target: Path | None) -> None:
    """Writes what is at a URL to a file, whole or not at all; or to stdout."""
    import urllib3

    timeout = urllib3.Timeout(connect=5, read=120)
    try:
        response = urllib3.request(
            "GET", url, preload_content=False, redirect=False, timeout=timeout
        )
        if response.status != 200:
            raise CliError(f"the object store answered with HTTP status {response.status}")
        if target is None:
            for block in response.stream(_BLOCK_BYTES):
                sys.stdout.buffer.write(block)
            sys.stdout.buffer.flush()
            return
        part = target.with_name(f".{target.name}.part")
        try:
            with part.open("wb") as file:
                for block in response.stream(_BLOCK_BYTES):
                    file.write(block)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except urllib3.exceptions.HTTPError as error:
        raise CliError(f"the object store does not answer: {error}", Exit.UNREACHABLE) from error
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CliError(f"{target or 'stdout'}: {(error.strerror or str(error)).lower()}") from error
