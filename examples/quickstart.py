"""The main job on this machine: serve the example data over HTTP, then tune, evaluate, package and serve the adapter.

This is ``argotune run examples/smollm2_135m_qlora_parquet.yaml`` with a data server beside it, because the example's
Workspace downloads its rows from 127.0.0.1:8765. Flags are passed on to ``argotune run``.
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
    """Serves files without a line for each."""

    def log_message(self, *_: object) -> None:
        """Stay quiet: the download step tells what it fetched."""


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
