"""Make ``docs/report.png`` from the report of a run, with a headless Chromium.

python docs/report_screenshot.py work/report/report.html
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
)
MAX_BYTES = 400_000


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path, help="report.html of a run")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("report.png"))
    parser.add_argument("--width", type=int, default=1000, help="width in pixels (default: 1000)")
    parser.add_argument("--height", type=int, default=1500, help="height in pixels (default: 1500)")
    args = parser.parse_args()
    take_screenshot(args.report, args.output, args.width, args.height)
    print(f"wrote {args.output} ({args.output.stat().st_size / 1000:.0f} kB)")


def take_screenshot(report: Path, output: Path, width: int = 1000, height: int = 1500) -> None:
    """Write the top of a page as a PNG file of ``width`` by ``height`` pixels."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("error: chromium is not installed\nfix: apt-get install chromium")
    with tempfile.TemporaryDirectory() as profile:
        size = f"--window-size={width},{height}"
        target = [f"--user-data-dir={profile}", size, f"--screenshot={output.resolve()}", report.resolve().as_uri()]
        subprocess.run([browser, *FLAGS, *target], check=True, timeout=120, capture_output=True)
    if output.stat().st_size > MAX_BYTES:
        sys.exit(f"error: {output} is larger than {MAX_BYTES // 1000} kB\nfix: pass a smaller --height")


if __name__ == "__main__":
    main()
