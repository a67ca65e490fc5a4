"""Run the example locally: serve its data over HTTP, then tune, evaluate, package and serve the adapter.

Equivalent to ``argotune run examples/smollm2_135m_qlora_parquet.yaml`` plus a data server, because the Workspace
downloads its rows from 127.0.0.1:8765. Arguments are passed to ``argotune run``.
"""

import http.server
import sys
import threading
from functools import partial
from pathlib import Path

from workflows.cli import main

EXAMPLES = Path(__file__).parent
PORT = 8765


class Files(http.server.SimpleHTTPRequestHandler):
    """File server without a log line per request."""

    def log_message(self, *_: object) -> None:
        """Log nothing: the download step reports its files."""


def quickstart() -> int:
    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", PORT), partial(Files, directory=EXAMPLES / "data"))
    except OSError as error:
        print(f"error: cannot serve the example data on 127.0.0.1:{PORT}: {error}", file=sys.stderr)
        return 1
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return main(["run", str(EXAMPLES / "smollm2_135m_qlora_parquet.yaml"), *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(quickstart())
