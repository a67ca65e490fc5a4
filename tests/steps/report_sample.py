"""A finished run on disk, and a reader of its report."""

import json
import math
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from steps.report.settings import Settings
from steps.report.step import report

DIGEST = "sha256:" + "0123456789abcdef" * 4
IMAGE = "myregistry.azurecr.io/team/bolt-adapter:1.4"
PLAN = {
    "name": {"value": "bolt-assistant", "origin": "workspace.yaml:4"},
    "resource": {
        "instanceType": {"value": "Standard_NC24ads_A100_v4", "origin": "workspace.yaml:7"},
        "count": {"value": 1, "origin": "built-in"},
    },
    "tuning": {
        "method": {"value": "qlora", "origin": "workspace.yaml:12"},
        "learningRate": {"value": 0.0002, "origin": "--set tuning.learningRate"},
        "targetModules": {
            "value": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
            "origin": "preset smollm2-135m-instruct",
        },
        "lora": {"deeper": {"value": {"r": 16, "init": "gaussian"}, "origin": "ConfigMap lora-params"}},
    },
}
FINISHED: dict[str, tuple[dict[str, Any], dict[str, Any], float]] = {
    "download": (
        {"urls": ["https://data.example.com/faq/train-00000-of-00001.parquet"]},
        {"rows": 360, "eval_rows": 40, "data_digest": DIGEST, "data_format": "messages"},
        3.2,
    ),
    "tune": (
        {
            "preset": "smollm2-135m-instruct",
            "model": "HuggingFaceTB/SmolLM2-135M-Instruct",
            "revision": "12fd25f77366fa6b3b4b768ec3050bf629380bac",
            "method": "qlora",
            "rank": 16,
        },
        {"adapter_digest": DIGEST, "train_loss": 1.204, "steps": 90, "device": "cpu", "tokens_per_second": 203.4},
        212.0,
    ),
    "evaluate": (
        {"max_loss_ratio": 1.0},
        {
            "base_loss": 3.9012,
            "adapter_loss": 0.6312,
            "base_perplexity": 49.46,
            "adapter_perplexity": 1.88,
            "verdict": "pass",
        },
        61.0,
    ),
    "package": (
        {"image": IMAGE},
        {"image_digest": DIGEST, "image_reference": IMAGE, "size_bytes": 9_812_443, "pushed": True},
        1.1,
    ),
    "rollout": (
        {"name": "bolt-assistant", "question": "Which bolt fits an M8 thread in salt water?"},
        {
            "endpoint": "http://127.0.0.1:41873/v1",
            "answer": "Use an A4-80 stainless bolt, M8 x 1.25, and grease it against galling.",
            "base_answer": "I'm not sure what you mean, but bolts come in many sizes.",
            "server": "transformers",
        },
        22.0,
    ),
}


CHECK = (
    {"image": IMAGE, "push": True},
    {"changed": True, "image": f"{IMAGE}-0123456789ab", "previous": f"{IMAGE}@{DIGEST}", "difference": "data"},
    0.4,
)


def write_check(work: Path, **result: Any) -> None:
    """Write the record of the check step of a retraining; ``result`` replaces outputs."""
    settings, outputs, seconds = CHECK
    record = {"step": "check", "settings": settings, "result": {**outputs, **result}, "seconds": seconds}
    write(work / "results" / "check.json", record)


def write_run(work: Path, *, steps: int = 90, until: str = "rollout") -> None:
    """Write the files of a run whose last finished step is ``until``."""
    started = 1_763_978_400
    for name, (settings, result, seconds) in FINISHED.items():
        timestamp = f"2026-11-24T10:{(started - 1_763_978_400) // 60:02.0f}:{(started % 60):02.0f}+00:00"
        record = {
            "step": name,
            "settings": {"work": str(work), **settings},
            "result": result,
            "started": timestamp,
            "seconds": seconds,
        }
        write(work / "results" / f"{name}.json", record)
        started += int(seconds)
        if name == until:
            break
    source = {"from": "https://data.example.com/faq/train-00000-of-00001.parquet", "rows": 400}
    write(work / "dataset" / "manifest.json", {"sources": [source], "held_out_rows_in_train": 3})
    if (work / "results" / "tune.json").exists():
        write(work / "report" / "train.jsonl", "\n".join(json.dumps(point) for point in curve(steps)))
    if (work / "results" / "evaluate.json").exists():
        write(work / "report" / "evaluation.json", EVALUATION)


EVALUATION = {
    **FINISHED["evaluate"][1],
    "rows": 40,
    "samples": [
        {
            "question": "How tight should I make an M8 bolt of class 8.8?",
            "reference": "About 25 Nm, dry; a fifth less when oiled.",
            "base_answer": "You should make it tight enough so that it does not come loose. " * 4,
            "adapter_answer": "25 Nm dry, 20 Nm oiled.",
        },
        {
            "question": "What does the number 10.9 on a bolt head mean?",
            "reference": "Tensile strength 1000 MPa, yield at 90 % of it.",
            "base_answer": "It is the size of the bolt.",
            "adapter_answer": "1000 MPa tensile strength, yield at 90 %.\n\nIt is a hardened steel bolt.",
        },
    ],
    "regressions": [{"question": "Who wrote Hamlet?", "base_loss": 0.71, "adapter_loss": 1.93}],
}


def curve(steps: int) -> list[dict[str, float]]:
    noise = random.Random(7)
    points: list[dict[str, float]] = [
        {
            "step": step,
            "epoch": step / 30,
            "loss": 0.5 + 3 * math.exp(-step / 18) + noise.gauss(0, 0.08),
            "learning_rate": 2e-4 * min(step / 9, 1 - step / (steps + 1)),
            "grad_norm": 0.8 + abs(noise.gauss(0, 0.3)),
            "tokens_per_second": 200 + noise.gauss(0, 9),
            "seconds": step * 2.3,
            "memory_gib": 11.4 + noise.gauss(0, 0.3),
            "memory_reserved_gib": 13.72 if step > 4 else 12.5,
        }
        for step in range(1, steps + 1)
    ]
    points += [{"step": step, "eval_loss": 0.62 + 3 * math.exp(-step / 17)} for step in range(30, steps + 1, 30)]
    return points


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def render(work: Path, plan: Any = PLAN, status: str = "Succeeded", failures: str = "null") -> str:
    plan = plan if isinstance(plan, str) else json.dumps(plan)
    result = report(Settings(work=work, plan=plan, status=status, failures=failures))
    return Path(result.report_path).read_text()


class Reader(HTMLParser):
    """Parses a page: its text, its tags, and whether every tag is closed in order."""

    VOID = frozenset({"meta", "br", "hr", "link", "img", "input"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == [], f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text.append(data)

    def contains(self, words: str) -> bool:
        return words in re.sub(r"\s+", " ", " ".join(self.text))
