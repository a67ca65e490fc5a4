"""A server process that a test can look after: Python's own file server, with the two pages that tell its health."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from steps.serving import server
from steps.serving.server import Server


def file_server(folder: Path, models: list[str], port: int, command: list[str] | None = None) -> Server:
    """Not started yet; it answers ``/health`` and lists ``models``, or runs ``command`` instead."""
    pages = folder / "pages"
    (pages / "v1").mkdir(parents=True, exist_ok=True)
    (pages / "health").write_text("ok")
    (pages / "v1" / "models").write_text(json.dumps({"data": [{"id": model} for model in models]}))
    served = [sys.executable, "-m", "http.server", str(port), "--bind", server.HOST, "--directory", str(pages)]
    return Server(
        kind="transformers",
        endpoint=f"http://{server.HOST}:{port}",
        models=models,
        command=command or served,
        settings="sha256:0",
        mark=f"test-{folder.name}-{port}",
    )
