"""A folder served over HTTP to this machine only."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from pretrain_bench.benchmarks.support.errors import EnvironmentCannot

LOOPBACK = "127.0.0.1"


@contextlib.contextmanager
def served(folder: Path, port: int) -> Iterator[str]:
    """Serve a folder on the loopback interface while the context lasts; gives the address. Port 0 takes any that is free.

    Raises EnvironmentCannot for a port that cannot be opened.
    """
    try:
        server = ThreadingHTTPServer((LOOPBACK, port), partial(_Files, directory=str(folder)))
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
    """Files of a folder, always as they are now, without a line in the log for each request."""

    def do_GET(self) -> None:
        """Send a file. A page of another site whose name was pointed at this machine gets nothing."""
        if (self.headers.get("Host") or "").split(":")[0] not in (LOOPBACK, "localhost"):
            self.send_error(403, "only for 127.0.0.1 and localhost")
            return
        super().do_GET()

    do_HEAD = do_GET

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""
