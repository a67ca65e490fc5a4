"""``benchmarks/readme_table.py``: the table in README.md, and results read from outputs of the scripts."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("readme_table", ROOT / "benchmarks" / "readme_table.py")
assert SPEC and SPEC.loader
readme_table = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(readme_table)

DATA = """\
| 4.0 GB | files, MB/s | seconds | CPU seconds | peak memory, MB | anonymous, MB | peak disk, GB |
|---|---|---|---|---|---|---|
| argotune download | 40.5 | {} | 108 | {} | 541 | 6.1 |
| `datasets` alone | 36.4 | 110 | 109 | {} | 253 | 10.0 |

within 1000 MB
"""
TUNING = """\
A processor, 2 cores

## conversations

| | rounds | useful tokens/s: median (minimum to maximum) | argotune relative to it | peak memory, GiB |
|---|---|---|---|---|
| KAITO-like | 5 | 113.3 (110.0 to 114.0) | 2.54x (2.50 to 2.60) | 2.7 |
| plain trl | 5 | 64.3 (64.0 to 65.0) | 4.47x (4.40 to 4.50) | 10.4 |
| plain trl same settings | 5 | 135.8 (130.0 to 136.0) | 2.12x (2.10 to 2.20) | 10.4 |
| argotune same settings | 5 | 134.2 (130.0 to 136.0) | 2.14x (2.10 to 2.20) | 7.9 |
| argotune | 5 | 287.5 (280.0 to 290.0) | 1.00x (1.00 to 1.00) | 5.0 |

LitGPT LoRA does not run: not installed: run benchmarks/tuning/install.py litgpt
argotune same settings: +1.1% (-1.0% to +2.0%) time per token than plain trl same settings,
largest difference of the loss curves 0.0e+00
"""
ROLLOUT = """
| requests | number | failed | p50, ms | p99, ms | slowest, ms |
|---|---|---|---|---|---|
| all | 1200 | 0 | 21 | 35 | 80 |
| while a rollout ran | 60 | 0 | 26 | 61 | 80 |
| otherwise | 1140 | 0 | 21 | 33 | 40 |
"""
MEMORY = """\
| Settings | weights, MiB (estimate) | error at peak |
|---|---|---|
| lora, batch 1 | 500 (510) | +0.7% |
| qlora, batch 8 | 900 (950) | -7.0% |
"""
COMPILE = """\
smollm2_135m_retraining.yaml, 7 rounds         wall       CPU time
argotune compile                     1.17 s     1.10 s
import hera, from_dict, to_dict      0.93 s     0.90 s
ratio                                1.25       1.22

1000 Workspaces in one call          wall       CPU time
total                                7.20 s     7.00 s
each, without start-up               6.10 ms    6.00 ms
each, with start-up                  7.20 ms    7.00 ms
"""
STATUS = json.dumps({
    "startedAt": "2026-11-30T10:00:00+00:00", "finishedAt": "2026-11-30T10:02:23.4+00:00",
    "steps": [
        {"name": "tune", "startedAt": "2026-11-30T10:00:10+00:00", "finishedAt": "2026-11-30T10:01:29+00:00"},
        {"name": "evaluate", "startedAt": "2026-11-30T10:01:29+00:00", "finishedAt": "2026-11-30T10:02:06+00:00",
         "outputs": {"base-loss": "5.51149", "adapter-loss": "0.0138"}},
        {"name": "rollout", "startedAt": "2026-11-30T10:02:00+00:00", "finishedAt": "2026-11-30T10:02:21+00:00",
         "outputs": {"agreement": "3 of 3 answers as in the evaluation; probabilities: not compared"}},
    ],
})  # fmt: skip
DEMO = ["the output of the run", STATUS, "stopped"]
OUTPUTS = {
    "demo": (DEMO, "2 min 23 s (tuning 79 s, evaluation 37 s, serving 21 s)"),
    "demo-loss": (DEMO, "5.511 and 0.014"),
    "demo-answers": (DEMO, "3 of 3 answers as in the evaluation"),
    "large-data": ([DATA.format(342, 792, 1)], "342 s, 792 MB of memory"),
    "registry": (
        ["round  argotune    skopeo  ratio  memory  skopeo\n    1      1.01      0.86   1.17      32      26\n"
         "median      1.00      0.86   1.17      32\nwithin 1.3 x skopeo's time and 150 MB\n"],
        "1.17 times the time of `skopeo copy` (1.00 s and 0.86 s, medians), 32 MB of memory",
    ),
    "rollout": (
        [ROLLOUT],
        "1200 requests, 0 failed; p50 21 ms, p99 35 ms; while an adapter changes p50 is 1.2 and p99 1.7 times as long",
    ),
    "tuning": (
        [TUNING],
        "287.5 (280.0 to 290.0) tokens/s, 2.54x (2.50 to 2.60) KAITO-like and 4.47x (4.40 to 4.50) "
        "plain trl; with trl's settings +1.1% (-1.0% to +2.0%) time",
    ),
    "kills": (
        ["killed 20 times in 162 steps\nloss curves differ by at most 0.0e+00\nweights differ by at most 1.0e-03\n"],
        "0.0 and 0.001",
    ),
    "memory": ([MEMORY], "-7.0% to +0.7% (2 settings, CPU)"),
    "compile": ([COMPILE], "1.25 times the time of Hera alone (1.17 s); 1,000 Workspaces in one call 7.20 ms each"),
    "startup": (
        ["| step | start, s of processor time | with its libraries, s | its libraries alone, s |\n|---|---|---|---|\n"
         "| tune | 0.35 | 5.40 | 6.00 |\n"],
        "5.40 s of processor time, 0.90 times that of importing trl, peft and transformers alone",
    ),
    "data": (
        [DATA.format(99, 615, 4189), DATA.format(116, 725, 4431), DATA.format(233, 672, 11465)],
        "0.90, 1.05 and 2.12 times the time of `datasets` alone (99, 116 and 233 s); at most 725 MB of memory, "
        "`datasets` 11465 MB",
    ),
}  # fmt: skip


def test_readme_has_the_table_of_the_results():
    rows = yaml.safe_load(readme_table.RESULTS.read_text())
    text = readme_table.README.read_text()
    assert readme_table.replace_table(text, readme_table.table(rows)) == text, "run benchmarks/readme_table.py"


def test_every_measurement_has_a_row():
    names = [row["name"] for row in yaml.safe_load(readme_table.RESULTS.read_text())]
    assert len(set(names)) == len(names)
    assert set(readme_table.MEASUREMENTS) <= set(names)


@pytest.mark.parametrize("name", OUTPUTS)
def test_result_is_read_from_the_output_of_the_script(name, monkeypatch):
    outputs, result = OUTPUTS[name]
    remaining = iter(outputs)
    monkeypatch.setattr(readme_table, "run", lambda *_: next(remaining))
    readme_table.demo_run.cache_clear()
    assert readme_table.MEASUREMENTS[name]() == result


def test_an_output_without_the_result_ends_with_what_is_missing(monkeypatch):
    monkeypatch.setattr(readme_table, "run", lambda *_: "NOT WITHIN")
    with pytest.raises(SystemExit, match="the output has no"):
        readme_table.measure_registry()


@pytest.mark.parametrize(("seconds", "text"), [(143.4, "2 min 23 s"), (119.7, "2 min 0 s"), (59.2, "0 min 59 s")])
def test_durations_have_whole_minutes(seconds, text):
    assert readme_table.duration(seconds) == text
