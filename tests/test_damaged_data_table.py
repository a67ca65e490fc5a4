"""docs/FAULTS.md lists every reader of foreign data, and each of them has a fuzz test."""

from __future__ import annotations

import re
from pathlib import Path

import fault_table
from fault_table import Row

TESTS = Path(__file__).parent
VALUE = "read, or rejected with a fix"
READERS = {
    "steps/oci/test_fuzz_registry.py": (
        "registry",
        "manifest, index, config, layer, token, challenge, error, redirect",
    ),
    "steps/oci/test_fuzz_layers.py": ("image", "tar members, whiteouts, gzip, layout, docker config, reference"),
    "steps/models/test_fuzz_adapter.py": ("adapter and base model", "adapter_config.json, safetensors, config.json"),
    "steps/serving/test_fuzz_requests.py": ("server", "bodies of /chat and /v1, list of adapters"),
    "steps/data/locations/test_fuzz_hub.py": ("model hub", "revision, tree, pages, card, model, file"),
    "steps/data/formats/test_fuzz_formats.py": ("data files", "JSON, JSON Lines, CSV, Arrow, tar, gzip, zstd"),
    "steps/data/formats/test_fuzz_delta.py": ("Delta log", "commits, checkpoints"),
    "steps/kubernetes/test_fuzz_kubernetes.py": ("Kubernetes API", "kubeconfig, objects, lists, statuses, nodes"),
    "steps/report/test_fuzz_report.py": ("report", "records of steps, failures and plan from Argo"),
    "workflows/runner/test_fuzz_run_files.py": ("local run", "workflow.json, state.json"),
    "workflows/commands/test_fuzz_presets_add.py": (
        "presets add",
        "model, config.json, tokenizer_config.json, generation_config.json, index",
    ),
    "workflows/plan/test_fuzz_site.py": ("validate", "Workspace, site profile, inference_config.yaml"),
    "workflows/lint/test_fuzz_lint.py": ("lint", "Argo documents"),
}


def test_every_reader_is_listed() -> None:
    existing = {str(path.relative_to(TESTS)) for path in TESTS.rglob("test_fuzz_*.py")}
    assert existing == set(READERS)
    for name in existing:
        assert re.search(r"fuzz\.cases\(", (TESTS / name).read_text()), f"{name} has no long variant"
    rows = [Row(reader, call, "changed bytes and values", VALUE) for reader, call in READERS.values()]
    fault_table.check("damaged data", rows)
