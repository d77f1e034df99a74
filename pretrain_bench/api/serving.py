"""Serve a folder, and responses computed on request, over HTTP to this machine only."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from pretrain_bench.benchmarks.support.errors import EnvironmentCannot, WrongUse

LOOPBACK = "127.0.0.1"
Answers = Mapping[str, Callable[[], bytes]]
"""URL path to a function that returns its JSON; the function raises WrongUse or OSError on failure."""


@contextlib.contextmanager
def served(folder: Path, port: int, answers: Answers | None = None) -> Iterator[str]:
    """Serve a folder and `answers` on the loopback interface while the context lasts; gives the address. Port 0 takes any that is
    free.

    Raises EnvironmentCannot for a port that cannot be opened.
    """
    try:
        server = ThreadingHTTPServer((LOOPBACK, port), partial(_Files, answers or {}, directory=str(folder)))
    except (OSError, OverflowError) as error:
        raise EnvironmentCannot(
            f"--serve: port {port} of {LOOPBACK} cannot be opened ({error}); --port names another"
        ) from error
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://{LOOPBACK}:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


class _Files(SimpleHTTPRequestHandler):
    """Files of a folder, always as they are now, and answers, without a line in the log for each request."""

    def __init__(self, answers: Answers, *arguments: Any, directory: str) -> None:
        self.answers = answers
        super().__init__(*arguments, directory=directory)

    def do_GET(self) -> None:
        """Send a file or an answer. A page of another site whose name was pointed at this machine gets nothing."""
        if (self.headers.get("Host") or "").split(":")[0] not in (LOOPBACK, "localhost"):
            self.send_error(403, "only for 127.0.0.1 and localhost")
            return
        if self.path in self.answers:
            self._send_json(self.answers[self.path])
        elif self.command == "HEAD":
            super().do_HEAD()
        else:
            super().do_GET()

    do_HEAD = do_GET

    def _send_json(self, answer: Callable[[], bytes]) -> None:
        try:
            content = answer()
        except (OSError, WrongUse) as error:
            self.send_error(503, explain=str(error))
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""
