"""Shape a cluster without GPU nodes for ``measure.py``: when a node joins, and how fast files arrive.

    python benchmarks/idle/shaped.py NODE --node-seconds 60 --files FOLDER --bytes-per-second 50000

It plays KAITO's gpu-provisioner: NODE, an existing node, gets the labels of a run this long after its NodeClaim was
created, and loses them with the claim. The site profile has ``provider: karpenter, nodeClass: KaitoNodeClass/shaped``.

Each download of a file of FOLDER (data of a Workspace, a blob of a registry below ``v2/``) gets the bytes per second.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import threading
import time
from datetime import UTC, datetime
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from steps.provision.node_providers import RUN_LABEL

STAGES = ("Launched", "Registered", "Initialized", "Ready")
PARTS_PER_SECOND = 10
POLL_SECONDS = 1.0


def main() -> None:
    """Serve the files and watch NodeClaims until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("node", help="name of an existing node with GPUs, or with pretended ones")
    parser.add_argument("--node-seconds", type=float, default=60, help="time until a node joins (default: 60)")
    parser.add_argument("--files", type=Path, default=Path(), help="directory to serve (default: this one)")
    parser.add_argument("--bytes-per-second", type=int, default=50_000, help="of each download (default: 50000)")
    parser.add_argument("--port", type=int, default=8099, help="port of the files (default: 8099)")
    args = parser.parse_args()
    server = file_server(args.files, args.port, args.bytes_per_second)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while True:
        play_provisioner(args.node, args.node_seconds, datetime.now(UTC))
        time.sleep(POLL_SECONDS)


def play_provisioner(node: str, node_seconds: float, now: datetime) -> None:
    """Let the node join for each NodeClaim of a run that is old enough, and leave when the claim is gone."""
    claims = _kubectl("get", "nodeclaims", "--selector", RUN_LABEL)["items"]
    runs = {claim["metadata"]["labels"][RUN_LABEL] for claim in claims}
    labels = _kubectl("get", "node", node)["metadata"]["labels"]
    if labels.get(RUN_LABEL) not in {None, *runs}:
        _kubectl("label", "node", node, f"{RUN_LABEL}-")
    for claim in claims:
        age = (now - datetime.fromisoformat(claim["metadata"]["creationTimestamp"])).total_seconds()
        if age >= node_seconds and not (claim.get("status") or {}).get("nodeName"):
            join(node, claim, now)


def join(node: str, claim: dict[str, Any], now: datetime) -> None:
    """Label the node as one of the run, and report the NodeClaim as ready."""
    own = {key: value for key, value in claim["metadata"]["labels"].items() if "karpenter" not in key}
    _kubectl("label", "node", node, "--overwrite", *(f"{key}={value}" for key, value in own.items()))
    time_text = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    fields = {"status": "True", "reason": "Shaped", "message": "", "lastTransitionTime": time_text}
    status = {"nodeName": node, "conditions": [{"type": stage, **fields} for stage in STAGES]}
    patch = ["--subresource", "status", "--type", "merge", "--patch", json.dumps({"status": status})]
    _kubectl("patch", "nodeclaim", claim["metadata"]["name"], *patch)


def file_server(folder: Path, port: int, bytes_per_second: int) -> ThreadingHTTPServer:
    """Return a server of files and ranges of them, each with a limited bandwidth."""

    class Handler(SimpleHTTPRequestHandler):
        """Answers to GET and HEAD."""

        def do_HEAD(self) -> None:
            self._answer(b"")

        def do_GET(self) -> None:
            self._answer(None)

        def _answer(self, body: bytes | None) -> None:
            file = (folder / self.path.partition("?")[0].strip("/")).resolve()
            if not file.is_relative_to(folder.resolve()):
                self.send_error(404)
                return
            content = file.read_bytes() if file.is_file() else b"{}"
            start, end = 0, len(content)
            if match := re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", "")):
                first, last = match.groups()
                start = int(first) if first else max(0, end - int(last))
                end = min(end, int(last) + 1) if first and last else end
            # A registry without its root is none.
            self.send_response(206 if match else 200 if file.is_file() or self.path == "/v2/" else 404)
            if match:
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
            kind = json.loads(content)["mediaType"] if "/manifests/" in self.path and file.is_file() else ""
            self.send_header("Content-Type", kind or "application/octet-stream")
            self.send_header("Content-Length", str(end - start))
            self.send_header("Accept-Ranges", "bytes")
            self.end_headers()
            self._send_slowly(content[start:end] if body is None else body)

        def _send_slowly(self, content: bytes) -> None:
            size = max(1, bytes_per_second // PARTS_PER_SECOND)
            for begin in range(0, len(content), size):
                self.wfile.write(content[begin : begin + size])
                if begin + size < len(content):
                    time.sleep(1 / PARTS_PER_SECOND)

    return ThreadingHTTPServer(("", port), Handler)


def _kubectl(*arguments: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(subprocess.check_output(["kubectl", *arguments, "--output", "json"]))
    return result


if __name__ == "__main__":
    main()
