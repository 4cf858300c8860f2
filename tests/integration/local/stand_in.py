"""A service that does nothing but say that it is ready: `python -m stand_in`."""

import os
import signal
import subprocess
from http.server import BaseHTTPRequestHandler, HTTPServer


class Metrics(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


if __name__ == "__main__":
    if os.environ.get("STAND_IN_FAILS"):
        raise SystemExit("no such model")
    # A child of its own, as a service that decodes has.
    subprocess.Popen(["sleep", "600"])
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    host, port = os.environ["STENO_METRICS_LISTEN"].split(":")
    try:
        HTTPServer((host, int(port)), Metrics).serve_forever()
    except KeyboardInterrupt:
        print("stopped in good order", flush=True)
