"""Charts, and the page in a real browser."""

import json
import os
import re
import shutil
import subprocess
import sys
from html import escape, unescape
from pathlib import Path

import pytest
from report_sample import EVALUATION, PLAN, render, write, write_run

from steps.report.report_charts import Series, line_chart


def test_a_long_training_has_a_small_chart_with_all_spikes() -> None:
    points = [(float(step), 1.0) for step in range(100_000)]
    points[54_321] = (54_321.0, 77.0)
    chart = line_chart("Loss", "", [Series("loss", points)], x_label="step", y_label="loss")
    assert chart
    (line,) = chart.lines
    assert len(line.path) < 20_000
    top = min(float(y) for y in re.findall(r"[ M][\d.]+,([\d.]+)", line.path))
    assert top < 100, "the spike reaches the top of the plot"


@pytest.fixture
def chromium() -> str:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser and os.environ.get("ARGOTUNE_REQUIRE_TOOLS") == "1":
        pytest.fail("chromium is required (ARGOTUNE_REQUIRE_TOOLS=1) and is not installed")
    return browser or pytest.skip("chromium is not installed: apt-get install chromium")


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1200])
def test_page_fits_the_width_of_a_phone(tmp_path: Path, chromium: str, width: int) -> None:
    write_run(tmp_path)
    endless = "pneumonoultramicroscopicsilicovolcanoconiosis" * 8
    long = {"question": endless, "base_answer": endless, "adapter_answer": endless, "reference": endless}
    regression = {"question": endless, "base_loss": 1e-7, "adapter_loss": 1234567.8}
    write(
        tmp_path / "report" / "evaluation.json",
        {**EVALUATION, "samples": [long, *EVALUATION["samples"]], "regressions": [regression]},
    )
    plan = PLAN | {endless[:80]: {"value": endless, "origin": endless}, "name": {"value": endless[:90], "origin": "x"}}
    page = render(tmp_path, plan=plan, failures=json.dumps([{"displayName": "tune", "message": endless}]))
    # A frame, because a browser window cannot be as narrow as a phone.
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<iframe width="{width}" height="3000" style="border:0" onload="measure(this)" srcdoc="{escape(page)}">'
        """</iframe><script>
        function measure(frame) {
          const seen = frame.contentDocument;
          const over = [...seen.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > frame.width);
          document.documentElement.dataset.measured = JSON.stringify({
            inner: frame.contentWindow.innerWidth,
            scroll: seen.documentElement.scrollWidth,
            over: over.map(e => e.outerHTML.slice(0, 80)),
          });
        }
        </script>"""
    )
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += [
        "--no-first-run",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--window-size=1400,3000",
        "--hide-scrollbars",
        "--dump-dom",
    ]
    done = subprocess.run([*command, frame.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    measured = re.search(r'data-measured="([^"]*)"', done.stdout)
    assert measured, done.stdout[:300]
    assert json.loads(unescape(measured[1])) == {"inner": width, "scroll": width, "over": []}


@pytest.mark.slow
def test_screenshot_of_the_readme(tmp_path: Path, chromium: str) -> None:
    write_run(tmp_path)
    render(tmp_path)
    script = Path(__file__).parents[3] / "docs" / "report_screenshot.py"
    picture = tmp_path / "report.png"
    report = tmp_path / "report" / "report.html"
    done = subprocess.run([sys.executable, script, report, "--output", picture], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    width, height = (int.from_bytes(picture.read_bytes()[start : start + 4], "big") for start in (16, 20))
    assert (width, height) == (1000, 1500)
