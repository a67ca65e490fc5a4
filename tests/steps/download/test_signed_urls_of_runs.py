"""Signatures of URLs can be renewed on resume; no file has one, except one file until the run succeeds."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trainable_model
from parquet_server import ParquetServer

from steps.data.fetch import fetch_all

SIGNATURE = "s3cr3t%2Fvalue"
WORKSPACE = """\
apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata: {name: signed}
tuning:
  preset: {name: smollm2-135m-instruct}
  method: lora
  input: {urls: [%s]}
  output: {volumeSource: {persistentVolumeClaim: {claimName: adapter}}}
pipeline:
  data: {allowPrivateHosts: true, evalSplit: 0}
"""


def download_only(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document without the steps that need a model."""
    for template in document["spec"]["templates"]:
        if template["name"] == "main":
            [task] = [task for task in template["dag"]["tasks"] if task["name"] == "download"]
            template["dag"]["tasks"] = [{**task, "depends": ""}]
    return document


def leaks(folder: Path) -> set[str]:
    """Return the files that have a part of the signature, by their names."""
    texts = {path: path.read_bytes().decode(errors="replace") for path in folder.rglob("*") if path.is_file()}
    return {path.name for path, text in texts.items() if "s3cr3t" in text}


def test_a_run_resumes_with_renewed_signatures_and_only_one_file_has_them(
    argotune: Callable[..., Any], parquet_server: ParquetServer, tmp_path: Path
) -> None:
    trainable_model.write_rows(tmp_path / "a.parquet", trainable_model.chat_rows(4))
    content = (tmp_path / "a.parquet").read_bytes()
    first, second = (f"/{name}.parquet?sv=2026&sig={SIGNATURE}{name}" for name in "ab")
    parquet_server.put(first, content)
    (tmp_path / "workspace.yaml").write_text(
        WORKSPACE % f'"{parquet_server.url}{first}", "{parquet_server.url}{second}"'
    )
    (tmp_path / "adapter").mkdir()
    environment = {"HOME": str(tmp_path), "ARGOTUNE_HOME": str(tmp_path / "home"), "ARGOTUNE_RUNS": str(tmp_path)}

    compiled = argotune("compile", tmp_path / "workspace.yaml", "-o", "json", **environment)
    assert compiled.returncode == 0, compiled.stderr
    document = tmp_path / "signed.json"
    document.write_text(json.dumps(download_only(json.loads(compiled.stdout))))
    ended = argotune("run", document, "--name", "run", **environment)
    assert ended.returncode == 2, ended.stdout + ended.stderr
    folder = tmp_path / "run"
    assert "b.parquet" in ended.stderr
    assert leaks(folder) == {"url-queries.json"}
    assert stat.S_IMODE((folder / "url-queries.json").stat().st_mode) == 0o600

    renewed = [path.replace(SIGNATURE, f"renewed-{SIGNATURE}&se=2027-01-01") for path in (first, second)]
    for path in renewed:
        parquet_server.put(path, content)
    other = document.read_text().replace(first, first.replace("a.parquet?", "a.parquet?file=2&"))
    document.write_text(other)
    refused = argotune("run", document, "--resume", **environment)
    assert "changed since the run was started" in refused.stderr
    document.write_text(
        other.replace("a.parquet?file=2&", "a.parquet?").replace(first, renewed[0]).replace(second, renewed[1])
    )
    resumed = argotune("run", document, "--resume", **environment)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert (folder / "volumes" / "work" / "report" / "report.html").exists()
    assert leaks(folder) == set()
    assert "s3cr3t" not in ended.stdout + ended.stderr + resumed.stdout + resumed.stderr
    assert {seen.path for seen in parquet_server.seen} <= {first, second, *renewed}


def test_urls_of_a_parameter_are_renewed_and_other_urls_are_rejected(
    argotune: Callable[..., Any], parquet_server: ParquetServer, tmp_path: Path
) -> None:
    trainable_model.write_rows(tmp_path / "a.parquet", trainable_model.chat_rows(4))
    content = (tmp_path / "a.parquet").read_bytes()
    workspace = tmp_path / "workspace.yaml"
    workspace.write_text(WORKSPACE % f"{parquet_server.url}/unused.parquet")
    (tmp_path / "adapter").mkdir()
    environment = {"HOME": str(tmp_path), "ARGOTUNE_HOME": str(tmp_path / "home"), "ARGOTUNE_RUNS": str(tmp_path)}
    compiled = argotune("compile", workspace, "-o", "json", **environment)
    document = tmp_path / "signed.json"
    document.write_text(json.dumps(download_only(json.loads(compiled.stdout))))

    def run(signature: str, *flags: str) -> Any:
        paths = [f"/{name}.parquet?file=1&sig={signature}{name}" for name in "ab"]
        urls = "\n".join(f"{parquet_server.url}{path}" for path in paths)
        return argotune("run", document, *flags, "-p", f"data-urls={urls}", **environment)

    parquet_server.put("/a.parquet?file=1&sig=s3cr3t-1a", content)  # the signature of b is not valid
    ended = run("s3cr3t-1", "--name", "run")
    assert ended.returncode == 2 and "b.parquet" in ended.stderr, ended.stdout + ended.stderr
    for name in "ab":
        parquet_server.put(f"/{name}.parquet?file=1&sig=s3cr3t-2{name}", content)
    other = argotune("run", document, "--resume", "-p", f"data-urls={parquet_server.url}/c.parquet", **environment)
    assert other.returncode == 2 and "-p data-urls: changed since the run was started" in other.stderr
    resumed = run("s3cr3t-2", "--resume")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert parquet_server.sent("/b.parquet?file=1&sig=s3cr3t-2b") == len(content)
    assert parquet_server.sent("/a.parquet?file=1&sig=s3cr3t-2a") == 0, "it is already there"
    assert "s3cr3t" not in ended.stdout + ended.stderr + other.stderr + resumed.stdout + resumed.stderr
    assert leaks(tmp_path / "run") == set()


def test_a_finished_download_is_found_under_a_renewed_signature(parquet_server: ParquetServer, tmp_path: Path) -> None:
    urls = [parquet_server.put(f"/a.parquet?sig={time}&se={time}", b"rows") for time in "12"]
    [old], [new] = (fetch_all([url], tmp_path, allow_private_hosts=True) for url in urls)
    assert (old.path, old.sha256) == (new.path, new.sha256)
    assert not parquet_server.requests_for("/a.parquet?sig=2&se=2")
