"""Run the example locally: serve its data over HTTP, then tune, evaluate, package and serve the adapter.

Equivalent to ``argotune run examples/smollm2_135m_qlora_parquet.yaml`` plus a data server, because the Workspace
downloads its rows from 127.0.0.1:8765; if that port is in use, the run downloads them from a free one. Arguments are
passed to ``argotune run``.
"""

import http.server
import re
import sys
import threading
from functools import partial
from pathlib import Path

from workflows.cli import main

EXAMPLES = Path(__file__).parent
WORKSPACE = EXAMPLES / "smollm2_135m_qlora_parquet.yaml"
PORT = 8765


class Files(http.server.SimpleHTTPRequestHandler):
    """File server without a log line per request."""

    def log_message(self, *_: object) -> None:
        """Log nothing: the download step reports its files."""


def quickstart() -> int:
    try:
        server, parameters = _serve(PORT), []
    except OSError as error:
        if "--resume" in sys.argv:  # the run has the URL with this port
            print(f"error: cannot serve the example data on 127.0.0.1:{PORT}: {error}", file=sys.stderr)
            return 1
        server = _serve(0)
        parameters = ["-p", f"data-urls={_data_url(server.server_port)}"]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return main(["run", str(WORKSPACE), *parameters, *sys.argv[1:]])


def _serve(port: int) -> http.server.ThreadingHTTPServer:
    return http.server.ThreadingHTTPServer(("127.0.0.1", port), partial(Files, directory=EXAMPLES / "data"))


def _data_url(port: int) -> str:
    """Return the URL of the Workspace with another port."""
    found = re.search(rf'"http://127\.0\.0\.1:{PORT}/(.+)"', WORKSPACE.read_text())
    assert found
    return f"http://127.0.0.1:{port}/{found[1]}"


if __name__ == "__main__":
    sys.exit(quickstart())
