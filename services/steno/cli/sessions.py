"""`steno sessions`: what is being recorded, and what was."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from steno.cli.audio import fetch
from steno.cli.connection import PATIENCE_SECONDS, Services, connect
from steno.cli.following import follow_session, get_session
from steno.cli.rendering import (
    clock,
    fields,
    print_fields,
    print_json,
    print_page,
    segment_line,
    session_state,
    time,
)
from steno.v1.concatenation_pb2 import (
    RECORDING_FORM_FILE,
    RECORDING_FORM_PLAYLIST,
    RECORDING_FORMAT_W64,
    CloseSessionRequest,
    DeleteSessionRequest,
    GetRecordingRequest,
    GetRecordingResponse,
    ListSessionsRequest,
    Session,
    SessionState,
    WatchSessionResponse,
)

_CLOSE_SECONDS = 60.0
STDOUT = "-"


async def list_all(options: argparse.Namespace) -> int:
    """Prints sessions, newest first."""
    async with connect(options) as services:
        stub = await services.sessions()
        request = ListSessionsRequest(
            page_size=options.limit,
            page_token=options.page_token,
            states=[SessionState.Value(f"SESSION_STATE_{s.upper()}") for s in options.states],
            labels=dict(options.labels),
        )
        response = await services.call("concatenation", stub.ListSessions, request)
    print_page(
        "sessions",
        response.sessions,
        response.next_page_token,
        {
            "SESSION": lambda session: session.session_id,
            "STATE": _state,
            "LENGTH": lambda session: clock(session.duration),
            "CREATED": lambda session: time(session.create_time),
            "NAME": lambda session: session.display_name,
        },
        as_json=options.json,
    )
    return 0


async def get(options: argparse.Namespace) -> int:
    """Prints one session."""
    async with connect(options) as services:
        print_session(await get_session(services, options.session_id), options.json)
    return 0


async def watch(options: argparse.Namespace) -> int:
    """Prints what happens to a session until nothing more can: its text, or all as JSON."""
    show = shower(options.json)
    async with connect(options, PATIENCE_SECONDS) as services:
        async for response in follow_session(
            services, options.session_id, after_revision=options.after_revision
        ):
            show(response)
    return 0


async def close(options: argparse.Namespace) -> int:
    """Ends sessions."""
    async with connect(options) as services:
        closed = [await end(services, session_id) for session_id in options.session_ids]
    if options.json:
        print_json({"sessions": [fields(session) for session in closed]})
    return 0


async def delete(options: argparse.Namespace) -> int:
    """Removes sessions."""
    async with connect(options) as services:
        stub = await services.sessions()
        for session_id in options.session_ids:
            request = DeleteSessionRequest(session_id=session_id)
            await services.call("concatenation", stub.DeleteSession, request)
    if options.json:
        print_json({"deleted": options.session_ids})
    return 0


def recording(options: argparse.Namespace) -> int:
    """Writes what is recorded by now to a file, or prints a playlist of it."""
    found = asyncio.run(_recorded(options))
    # Outside of the event loop, so that Ctrl-C ends it at once.
    if options.playlist:
        print(found.playlist, end="", flush=True)
    elif options.output == STDOUT:
        fetch(found.url, None)
    else:
        suffix = ".w64" if found.file_format == RECORDING_FORMAT_W64 else ".wav"
        target = Path(options.output or f"{options.session_id}{suffix}")
        fetch(found.url, target)
        if options.json:
            print_json({"session_id": options.session_id, "file": str(target)})
        else:
            print(target)
    return 0


async def _recorded(options: argparse.Namespace) -> GetRecordingResponse:
    """Where it is."""
    form = RECORDING_FORM_PLAYLIST if options.playlist else RECORDING_FORM_FILE
    request = GetRecordingRequest(session_id=options.session_id, form=form)
    async with connect(options) as services:
        stub = await services.sessions()
        return await services.call(
            "concatenation", stub.GetRecording, request, timeout=_CLOSE_SECONDS
        )


async def end(services: Services, session_id: str) -> Session:
    """Closes a session. Raises CliError."""
    stub = await services.sessions()
    request = CloseSessionRequest(session_id=session_id)
    response = await services.call(
        "concatenation", stub.CloseSession, request, timeout=_CLOSE_SECONDS
    )
    return response.session


def _state(session: Session) -> str:
    parked = ", parked" if session.HasField("parking") else ""
    return session_state(session.state) + parked


def print_session(session: Session, as_json: bool) -> None:
    """Prints one session."""
    if as_json:
        print_json(fields(session))
        return
    gaps = session.gap_duration.ToMilliseconds()
    print_fields(
        {
            "session": session.session_id,
            "name": session.display_name,
            "state": _state(session),
            "why": session.error.message or session.parking.message,
            "failures": str(session.parking.failure_count or ""),
            "next try": time(session.parking.next_attempt_time),
            "length": clock(session.duration),
            "gaps": f"{gaps / 1000:.1f} s" if gaps else "",
            "heard": clock(session.transcribed_duration),
            "no text": session.live_error,
            "no job": session.job_error,
            "audio": session.audio_id,
            "job": session.job_id,
            "labels": " ".join(f"{key}={value}" for key, value in sorted(session.labels.items())),
            "created": time(session.create_time),
            "ended": time(session.end_time),
        }
    )


def shower(as_json: bool) -> Callable[[WatchSessionResponse], None]:
    """What shows a session on the terminal: what is final as lines, what firms up below them."""
    if as_json:
        return lambda response: print_json(fields(response), indent=None)
    return _Screen().show


class _Screen:
    """Final text on stdout; on a terminal, what is being said below it, the stable part bright."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()

    def show(self, response: WatchSessionResponse) -> None:
        """Shows what was told."""
        event = response.event
        if event.HasField("result_added"):
            self._clear()
            print(segment_line(event.result_added.segment), flush=True)
        elif event.HasField("gap_added"):
            self._clear()
            span = event.gap_added.span
            print(f"[{clock(span.start_offset)} - {clock(span.end_offset)}] (missing)", flush=True)
        elif response.HasField("interim") and self._shown:
            self._clear()
            words, stable = response.interim.segment.words, response.interim.stable_word_count
            firm = "".join(word.word for word in words[:stable])
            loose = "".join(word.word for word in words[stable:])
            print(one_line(firm.lstrip(), loose), end="", file=sys.stderr, flush=True)

    def _clear(self) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def one_line(firm: str, loose: str) -> str:
    """The end of what is being said, as much as one line of the terminal holds; the loose dimmed.

    A line that wraps could not be cleared as a whole.
    """
    from rich.cells import cell_len

    room = shutil.get_terminal_size().columns - 1
    text = firm + loose
    while cell_len(text) > room:
        text = text[max(1, (cell_len(text) - room) // 2) :]
    kept = max(0, len(text) - len(loose))
    return text[:kept] + "\x1b[2m" + text[kept:] + "\x1b[0m"
