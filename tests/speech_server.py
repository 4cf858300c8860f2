"""A server that answers `POST /v1/audio/transcriptions` with what a test wishes."""

from __future__ import annotations

import json
import select
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steno.audio import SAMPLE_RATE_HERTZ, decode_slice


@dataclass(frozen=True)
class Asked:
    """A request as it came.

    Attributes:
        fields: values of the form, by name.
        samples: the audio, int16 of shape (n,).
    """

    path: str
    headers: Message
    fields: dict[str, list[str]]
    samples: NDArray[np.int16]

    @property
    def seconds(self) -> float:
        return len(self.samples) / SAMPLE_RATE_HERTZ

    @property
    def is_silence(self) -> bool:
        """It is the second of silence by which an engine asks how the server is."""
        return self.seconds == 1 and not self.samples.any()


@dataclass(frozen=True)
class Reply:
    """What the server does: answers, or cuts the connection, or keeps the client waiting."""

    status: int = 200
    body: Any = field(default_factory=lambda: {"text": ""})
    headers: dict[str, str] = field(default_factory=dict)
    cuts: bool = False
    hangs: bool = False


def told(text: str, seconds: float, **more: Any) -> dict[str, Any]:
    """A `verbose_json` whose words are spread evenly over the audio, beside one segment."""
    words = text.split()
    each = seconds / max(1, len(words))
    return {
        "task": "transcribe",
        "language": "english",
        "duration": seconds,
        "text": text,
        "segments": [{"id": 0, "start": 0.0, "end": seconds, "text": f" {text}"}],
        "words": [
            {"word": word.strip(".,"), "start": n * each, "end": (n + 1) * each}
            for n, word in enumerate(words)
        ],
        **more,
    }


def well_told(asked: Asked) -> Reply:
    """The answer of a server that is well."""
    return Reply(body=told("It was a cold day.", asked.seconds, model="parrot@r7"))


class SpeechServer:
    """Serves on a free port of the loopback address, in threads.

    Attributes:
        url: what stands before `/audio/transcriptions`.
        asked: requests, but for those of silence, in the order in which they came.
        silences: requests of silence.
        script: replies to the next requests that are not of silence.
        otherwise: replies where the script has ended.
        silence: replies to silence.
        left: requests whose client closed the connection while it was kept waiting.
    """

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.silences = 0
        self.left = 0
        self.script: deque[Reply] = deque()
        self.otherwise: Callable[[Asked], Reply] = well_told
        self.silence: Callable[[Asked], Reply] = lambda asked: Reply()
        self._closing = threading.Event()
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    def start(self) -> None:
        """Serves; after a stop, at the same address."""
        speech = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                speech._reply(self)

            def log_message(self, format: str, *args: object) -> None:
                """Tests say themselves what they saw."""

        class Server(ThreadingHTTPServer):
            allow_reuse_address = True
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *request: object) -> None:
                """Clients may leave."""

        self._closing = threading.Event()  # requests of before have the one that is set
        self._server = Server(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Nobody listens any more."""
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def _reply(self, handler: BaseHTTPRequestHandler) -> None:
        asked = _parsed(handler)
        if asked.is_silence:
            self.silences += 1
            reply = self.silence(asked)
        else:
            self.asked.append(asked)
            reply = self.script.popleft() if self.script else self.otherwise(asked)
        if reply.hangs:
            self._keep_waiting(handler)
        if reply.hangs or reply.cuts:
            handler.close_connection = True
            return
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        handler.send_response(reply.status)
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def _keep_waiting(self, handler: BaseHTTPRequestHandler) -> None:
        closing = self._closing
        while not closing.is_set():
            readable, _, _ = select.select([handler.connection], [], [], 0.05)
            if readable:  # a client that waits sends nothing; this one has gone
                self.left += 1
                return


def _parsed(handler: BaseHTTPRequestHandler) -> Asked:
    body = handler.rfile.read(int(handler.headers["Content-Length"]))
    head = f"Content-Type: {handler.headers['Content-Type']}\r\n\r\n".encode()
    fields: dict[str, list[str]] = {}
    samples = np.zeros(0, np.int16)
    for part in BytesParser(policy=HTTP).parsebytes(head + body).iter_parts():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        if part.get_filename():
            samples = decode_slice(content)
        else:
            assert isinstance(name, str)
            fields.setdefault(name, []).append(content.decode())
    return Asked(handler.path, handler.headers, fields, samples)


@contextmanager
def speech_server() -> Iterator[SpeechServer]:
    """A server that is well, until a test wishes otherwise."""
    server = SpeechServer()
    server.start()
    try:
        yield server
    finally:
        server.stop()
