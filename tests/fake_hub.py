"""A model hub on the loopback address, as far as Steno asks it for anything."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

COMMIT = "89abcdef0123456789abcdef0123456789abcdef"


class Hub:
    """Serves the files of one repository. Enter to start it.

    Attributes:
        repository: `owner/name`; the others are not there.
        files: content by path.
        commit: what its newest revision is.
        left: bytes of files that it sends before it fails.
        sent: bytes of files that were sent.
        refuses: the status that every answer has, as if a proxy gave it; 0 for none.
    """

    def __init__(self) -> None:
        self.repository = "someone/whisper-small"
        self.files: dict[str, bytes] = {}
        self.commit = COMMIT
        self.left = 1 << 30
        self.sent = 0
        self.refuses = 0
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub._answer(self)

            do_HEAD = do_GET

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def url(self) -> str:
        """What HF_ENDPOINT must say."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Hub:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        path = urlsplit(request.path).path
        if self.refuses:
            return self._refuse(request, self.refuses)
        if path.startswith(f"/api/models/{self.repository}"):
            return self._tell(request)
        start = f"/{self.repository}/resolve/"
        name = path.removeprefix(start).partition("/")[2]
        if path.startswith(start) and name in self.files:
            return self._send(request, self.files[name])
        return self._refuse(request, 404, ("X-Error-Code", "RepoNotFound"))

    def _refuse(
        self, request: BaseHTTPRequestHandler, status: int, *headers: tuple[str, str]
    ) -> None:
        request.send_response(status)
        for name, value in (*headers, ("Content-Length", "0")):
            request.send_header(name, value)
        request.end_headers()

    def _tell(self, request: BaseHTTPRequestHandler) -> None:
        siblings = [
            {
                "rfilename": name,
                "size": len(content),
                "lfs": {
                    "sha256": hashlib.sha256(content).hexdigest(),
                    "size": len(content),
                    "pointerSize": 100,
                },
            }
            for name, content in self.files.items()
        ]
        told = {"id": self.repository, "sha": self.commit, "siblings": siblings}
        body = json.dumps(told).encode()
        request.send_response(200)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def _send(self, request: BaseHTTPRequestHandler, content: bytes) -> None:
        if not self.left:
            return self._refuse(request, 503)
        first = 0
        if wanted := request.headers.get("Range"):
            first = int(wanted.removeprefix("bytes=").partition("-")[0])
        request.send_response(206 if wanted else 200)
        request.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        request.send_header("X-Repo-Commit", self.commit)
        if wanted:
            size = len(content)
            request.send_header("Content-Range", f"bytes {first}-{size - 1}/{size}")
        request.send_header("Content-Length", str(len(content) - first))
        request.end_headers()
        if request.command == "GET":
            part = content[first:][: self.left]
            self.left -= len(part)
            self.sent += len(part)
            request.wfile.write(part)
        return None
