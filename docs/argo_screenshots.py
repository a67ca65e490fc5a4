"""Make the pictures of docs/CLUSTER.md from the UI of an Argo server, with a headless Chromium.

python docs/argo_screenshots.py http://127.0.0.1:2746 --namespace argotune --run oncall-cluster-x2b4c

Start the Argo server without its greetings: FIRST_TIME_USER_MODAL=false FEEDBACK_MODAL=false NEW_VERSION_MODAL=false.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import websocket  # of the package websocket-client, which the kubernetes client brings

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
    *("--remote-debugging-port=0", "--remote-allow-origins=*"),
)
START_SECONDS, LOAD_SECONDS = 60, 90
WIDTH = 1680
MAX_BYTES = 200_000


def main() -> None:
    """Write the four pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("server", help="address of the Argo server")
    parser.add_argument("--namespace", default="argotune", help="namespace of the runs (default: argotune)")
    parser.add_argument("--run", required=True, help="name of a finished run")
    parser.add_argument("--template", default="oncall-cluster", help="WorkflowTemplate (default: oncall-cluster)")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "images", help="directory")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    server, runs = args.server.rstrip("/"), f"workflows/{args.namespace}"
    templates = f"workflow-templates/{args.namespace}"
    node = report_node(server, args.namespace, args.run)
    pages = {
        "argo-list": (f"{runs}?limit=50", "oncall", 620),
        "argo-graph": (f"{runs}/{args.run}?tab=workflow&nodePanelView=summary", "rollout", 900),
        "argo-report": (f"{runs}/{args.run}?tab=workflow&nodeId={node}&nodePanelView=inputs-outputs", "verdict", 900),
        "argo-form": (
            f"{templates}/{args.template}?sidePanel=submit",
            "Parameters",
            900,
        ),
    }
    with open_browser() as browser:
        for name, (path, text, height) in pages.items():
            file = args.output / f"{name}.png"
            browser.take_screenshot(f"{server}/{path}", text, file, height)
            print(f"wrote {file} ({file.stat().st_size / 1000:.0f} kB)")
            if file.stat().st_size > MAX_BYTES:
                sys.exit(f"error: {file} is larger than {MAX_BYTES // 1000} kB")


def report_node(server: str, namespace: str, run: str) -> str:
    """Return the id of the node of the step report."""
    with urllib.request.urlopen(f"{server}/api/v1/workflows/{namespace}/{run}", timeout=30) as response:
        nodes = json.load(response)["status"]["nodes"]
    found = [key for key, node in nodes.items() if node.get("templateName") == "report" and node["type"] == "Pod"]
    if not found:
        sys.exit(f"error: {run} has no step report\nfix: pass a finished run")
    return str(found[-1])


class Browser:
    """A page of Chromium, driven by the DevTools protocol."""

    def __init__(self, address: str) -> None:
        self._socket = websocket.create_connection(address, timeout=LOAD_SECONDS)
        self._numbers = itertools.count(1)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Return the result of a command."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == number:
                return dict(message.get("result") or {})

    def evaluate(self, script: str) -> Any:
        """Return the value of an expression in the page."""
        return self.call("Runtime.evaluate", expression=script, returnByValue=True).get("result", {}).get("value")

    def take_screenshot(self, url: str, text: str, file: Path, height: int) -> None:
        """Write a page as PNG once it shows a text."""
        self.call("Emulation.setDeviceMetricsOverride", width=WIDTH, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Page.navigate", url=url)
        end = time.monotonic() + LOAD_SECONDS
        while text not in (self.evaluate("document.body ? document.body.innerText : ''") or ""):
            if time.monotonic() > end:
                sys.exit(f"error: {url} did not show {text!r} within {LOAD_SECONDS} s")
            time.sleep(0.5)
        time.sleep(2)  # the graph is laid out, and side panels slide in
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextlib.contextmanager
def open_browser() -> Iterator[Browser]:
    """Start Chromium; it ends with the block."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        sys.exit("error: chromium is not installed\nfix: apt-get install chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield Browser(_page_address(Path(profile) / "DevToolsActivePort"))
        finally:
            process.terminate()
            process.wait(30)


def _page_address(port_file: Path) -> str:
    end = time.monotonic() + START_SECONDS
    while not port_file.exists() or not port_file.read_text().strip():
        if time.monotonic() > end:
            sys.exit(f"error: chromium did not start within {START_SECONDS} s")
        time.sleep(0.1)
    port = port_file.read_text().split()[0]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=START_SECONDS) as response:
        return next(str(page["webSocketDebuggerUrl"]) for page in json.load(response) if page["type"] == "page")


if __name__ == "__main__":
    main()
