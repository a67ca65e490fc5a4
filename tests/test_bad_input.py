"""Invalid input, from the command line to the step that detects it: one clear error, exit code 2, no files."""

import functools
import http.server
import os
import subprocess
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

WORKSPACE = """\
apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata:
  name: bad
resource:
  labelSelector:
    matchLabels: {app: bad}
tuning:
  preset:
    name: smollm2-135m-instruct
  method: qlora
  input:
    urls: ["URL"]
  output:
    image: registry.example.com/adapters/bad:1
pipeline:
  data:
    allowPrivateHosts: true
"""
INFERENCE = "inference:\n  preset:\n    name: smollm2-135m-instruct\n"


@pytest.fixture
def isolated(argotune, tmp_path):
    """The command line in a separate folder and home."""
    return functools.partial(argotune, cwd=tmp_path, ARGOTUNE_HOME=str(tmp_path / "home"), HOME=str(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("  method: qlora", "  method: qlora\n  metod: lora"), "bad.yaml:12: tuning.metod: unknown field"),
        (("smollm2-135m-instruct", "smollm2-135m-instrukt"), "Unsupported tuning preset name smollm2-135m-instrukt"),
        (("tuning:", "tuning_:"), "bad.yaml:8: tuning_: unknown field"),
        (("    urls:", "    image: reg.io/d:1\n    urls:"), "Exactly one of URLs, Volume, or Image must be specified"),
        (("adapters/bad:1", "Adapters/bad:1"), "Unable to parse output image reference"),
        (("adapters/bad:1", "adapters/bad:1:2"), "Unable to parse output image reference"),
        (("  method: qlora", "  method: qlora: lora"), "not YAML"),
    ],
)
@pytest.mark.parametrize("verb", ["validate", "compile", "run"])
def test_an_invalid_workspace_is_rejected_before_anything_is_written(isolated, verb, change, message, tmp_path):
    (tmp_path / "bad.yaml").write_text(WORKSPACE.replace("URL", "https://example.com/a.parquet").replace(*change))
    before = sorted(tmp_path.rglob("*"))
    ended = isolated(verb, "bad.yaml")
    assert ended.returncode == 2, ended.stderr
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("verb", ["validate", "run"])
def test_a_workspace_without_tuning_and_inference_is_rejected(isolated, verb, tmp_path):
    (tmp_path / "bad.yaml").write_text(WORKSPACE[: WORKSPACE.index("tuning:")])
    ended = isolated(verb, "bad.yaml")
    assert ended.returncode == 2
    assert "Either Inference or Tuning must be specified, not neither" in ended.stderr


def test_all_errors_are_reported_together(isolated, tmp_path):
    text = WORKSPACE.replace("URL", "ftp://example.com/a.parquet").replace("qlora", "dora").replace("bad:1", "Bad:1")
    (tmp_path / "bad.yaml").write_text(text)
    ended = isolated("run", "bad.yaml", "--set", "tuning.epoch=1")
    assert ended.returncode == 2
    assert all(part in ended.stderr for part in ("tuning.input.urls[0]", "dora", "output.image", "tuning.epochs"))
    assert ended.stderr.count("error: ") == 4, ended.stderr


def test_tuning_and_inference_of_two_models_are_rejected(isolated, tmp_path):
    text = WORKSPACE.replace("URL", "https://example.com/a.parquet") + INFERENCE.replace(
        "smollm2-135m-instruct", "phi-4"
    )
    (tmp_path / "bad.yaml").write_text(text)
    ended = isolated("validate", "bad.yaml")
    assert ended.returncode == 2
    assert "inference.preset" in ended.stderr


@pytest.fixture
def served(tmp_path):
    """A folder served over HTTP, and the URL of a file in it."""
    folder = tmp_path / "data"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}/a.parquet"
        server.shutdown()


def not_parquet(file: Path) -> None:
    file.write_text("<html>please sign in</html>" * 100)


def other_columns(file: Path) -> None:
    pq.write_table(pa.table({"question": ["a"], "reply": ["b"]}), file)


def no_rows(file: Path) -> None:
    pq.write_table(pa.table({"prompt": pa.array([], pa.string()), "completion": pa.array([], pa.string())}), file)


def empty_file(file: Path) -> None:
    file.write_bytes(b"")


def good(file: Path) -> None:
    rows = [f"row {number} " + os.urandom(1000).hex() for number in range(1500)]
    pq.write_table(pa.table({"prompt": rows, "completion": rows}), file, compression="none")


@pytest.mark.parametrize(
    ("write", "suffix", "step", "message"),
    [
        (not_parquet, "", "preflight", "parquet"),
        (other_columns, "", "download", "no columns to tune on"),
        (no_rows, "", "download", "no rows"),
        (empty_file, "", "preflight", "empty"),
        (None, "", "preflight", "404"),
        (good, "#sha256=" + "0" * 64, "download", "sha256"),
    ],
    ids=["not parquet", "other columns", "no rows", "empty file", "404", "wrong checksum"],
)
def test_bad_data_fails_the_run_immediately(isolated, write, suffix, step, message, served, tmp_path):
    folder, url = served
    if write:
        write(folder / "a.parquet")
    (tmp_path / "bad.yaml").write_text(WORKSPACE.replace("URL", url + suffix))
    ended = isolated("run", "bad.yaml", "--name", "bad-1", "-p", "push=false")
    assert ended.returncode == 2, ended.stderr
    last = ended.stderr[ended.stderr.rindex("error: ") :]
    assert last.startswith(f"error: {step} failed")
    assert message in last, last
    assert "fix: " in last
    assert "Traceback" not in ended.stderr
    assert "tune: Omitted" in ended.stderr
    assert_no_outputs(tmp_path / "runs" / "bad-1" / "volumes" / "work")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_reported(isolated, served, tmp_path):
    folder, url = served
    good(folder / "a.parquet")
    (tmp_path / "bad.yaml").write_text(WORKSPACE.replace("URL", url))
    (tmp_path / "runs").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", tmp_path / "runs"], check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        ended = isolated("run", "bad.yaml", "--name", "bad-1", "-p", "push=false")
        assert ended.returncode == 2, ended.stderr
        assert "no space left" in ended.stderr[ended.stderr.rindex("error: ") :]
        assert_no_outputs(tmp_path / "runs" / "bad-1" / "volumes" / "work")
    finally:
        subprocess.run(["umount", tmp_path / "runs"], check=True)


def assert_no_outputs(work: Path) -> None:
    files = [path for name in ("dataset", "adapter", "image") for path in (work / name).rglob("*") if path.is_file()]
    assert files == []
