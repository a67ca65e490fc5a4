"""The download step as a process with a real server: its exit code and its outputs."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_image import build_data_image
from parquet_server import Fault, ParquetServer

from steps.download.settings import Result, Settings
from steps.download.step import download, outputs_intact
from steps.oci import reference, registry
from steps.runtime.entrypoint import main
from steps.runtime.errors import BadInput


def command(work: Path, *flags: str) -> list[str]:
    return ["-m", "steps.download", "--work", str(work), *flags]


def of_this_machine(*urls: str) -> tuple[str, ...]:
    return ("--urls", json.dumps(urls), "--allow-private-hosts", "true")


@dataclass
class Ended:
    """Outcome of a step process."""

    code: int
    stdout: str
    stderr: str


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Run the step's entry on ``urls`` of this machine, as ``python -m`` does, and expect its exit code."""

    def run(work: Path, *urls: str, flags: tuple[str, ...] = (), code: int = 0) -> Ended:
        given = of_this_machine(*urls) if urls else ()
        monkeypatch.setattr(sys, "argv", ["download.py", *command(work, *given, *flags)[2:]])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main(Settings, download, outputs_intact=outputs_intact, result_type=Result)
        ended = Ended(int(left.value.code or 0), *capsys.readouterr())
        assert ended.code == code, ended.stdout + ended.stderr
        assert "Traceback" not in ended.stderr and "unexpected" not in ended.stderr
        return ended

    return run


def rows_of(path: Path) -> list[Any]:
    return pq.read_table(path)["messages"].to_pylist()


def manifest_of(work: Path) -> dict[str, Any]:
    return json.loads((work / "dataset" / "manifest.json").read_text())


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path / "work"


def test_two_files_become_one_split_data_set(step, work, parquet_server: ParquetServer, chats, as_parquet) -> None:
    bodies = [as_parquet(messages=chats(60)), as_parquet(messages=chats(40, "node"))]
    urls = [parquet_server.put(f"/{i}/data.parquet?download=true", body) for i, body in enumerate(bodies)]
    done = step(work, *urls)
    assert "90 training rows, 10 held out, from 2 files" in done.stdout
    train, held_out = rows_of(work / "dataset/train.parquet"), rows_of(work / "dataset/eval.parquet")
    assert sorted(map(str, train + held_out)) == sorted(map(str, chats(60) + chats(40, "node")))
    manifest = manifest_of(work)
    shown = [url.replace("=true", "=***") for url in urls]
    assert [(entry["from"], entry["rows"]) for entry in manifest["sources"]] == list(zip(shown, [60, 40], strict=True))
    assert [entry["sha256"] for entry in manifest["sources"]] == [
        "sha256:" + hashlib.sha256(body).hexdigest() for body in bodies
    ]
    assert (manifest["rows"], manifest["eval_rows"], manifest["data_format"]) == (90, 10, "messages")
    assert sorted(path.name for path in (work / "dataset").iterdir()) == [
        "eval.parquet",
        "manifest.json",
        "raw",
        "train.parquet",
    ]
    again = step(work, *urls)
    assert "already done" in again.stdout and len(parquet_server.seen) == 2


def test_results_are_output_parameters(step, work, tmp_path, parquet_server, chats, as_parquet, monkeypatch) -> None:
    monkeypatch.setenv("ARGOTUNE_OUTPUTS", str(tmp_path / "outputs"))
    body = as_parquet(prompt=["a", "b"], completion=["c", "d"])
    step(work, parquet_server.put("/x.parquet", body), flags=("--eval-split", "0", "--source", ""))
    values = {path.name: path.read_text() for path in (tmp_path / "outputs").iterdir()}
    digest = values.pop("data-digest")
    assert values == {"rows": "2", "eval-rows": "0", "data-format": "prompt-completion"}
    assert digest == manifest_of(work)["data_digest"] and digest.startswith("sha256:")
    assert not (work / "dataset/eval.parquet").exists()


def test_digest_depends_only_on_content_and_split(tmp_path, parquet_server, chats, as_parquet) -> None:
    body = as_parquet(messages=chats(30))
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume/other-name.parquet").write_bytes(body)
    url = parquet_server.put("/x.parquet", body)

    def made(name: str, **settings: Any) -> tuple[str, bytes]:
        work = tmp_path / name
        digest = download(Settings(work=work, allow_private_hosts=True, **settings)).data_digest
        return digest, (work / "dataset/train.parquet").read_bytes()

    first = made("one", urls=[url])
    assert made("two", source=tmp_path / "volume") == first
    assert made("three", urls=[url], seed=43)[0] != first[0]
    assert made("four", urls=[url], shuffle=False)[0] != first[0]
    parquet_server.put("/y.parquet", as_parquet(messages=chats(31)))
    assert made("five", urls=[parquet_server.url + "/y.parquet"])[0] != first[0]


def test_folder_or_file_as_source(step, tmp_path, work, chats, as_parquet) -> None:
    folder = tmp_path / "volume"
    # As Kubernetes mounts a ConfigMap: the files are links into a hidden folder.
    hidden = folder / "..2026_11_24"
    (folder / "more").mkdir(parents=True)
    hidden.mkdir()
    (hidden / "b.parquet").write_bytes(as_parquet(messages=chats(3, "b")))
    (folder / "b.parquet").symlink_to("..2026_11_24/b.parquet")
    (folder / "more/A.PARQUET").write_bytes(as_parquet(messages=chats(2, "more")))
    (folder / "readme.txt").write_text("not data")
    flags = ("--source", str(folder), "--shuffle", "false", "--eval-split", "0")
    step(work, flags=flags)
    assert rows_of(work / "dataset/train.parquet") == chats(3, "b") + chats(2, "more")
    assert not (work / "dataset/raw").exists()
    assert "already done" in step(work, flags=flags).stdout
    (folder / "more/A.PARQUET").write_bytes(as_parquet(messages=chats(7, "more")))
    assert "10 training rows" in step(work, flags=flags).stdout
    step(tmp_path / "second", flags=("--source", str(folder / "b.parquet"), "--eval-split", "0"))
    assert len(rows_of(tmp_path / "second/dataset/train.parquet")) == 3


def test_image_as_source(step, tmp_path, work, as_parquet, chats, open_registry, docker_config) -> None:
    layout = tmp_path / "layout"
    build_data_image(layout, {"a.parquet": as_parquet(messages=chats(20, "image"))})
    image = f"{open_registry.address}/rows:1"
    registry.push_image(layout, reference.parse(image))
    assert "18 training rows, 2 held out" in step(work, flags=("--image", image)).stdout
    source = json.loads((work / "dataset/manifest.json").read_text())["sources"][0]
    assert source["from"] == f"{image}:a.parquet"
    assert "404" in step(work, flags=("--image", f"{open_registry.address}/rows:2"), code=2).stderr


def test_empty_sources(step, tmp_path, work) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume/notes.txt").write_text("a,b")
    assert (
        "no data file found: the folder contains notes.txt"
        in step(work, flags=("--source", str(tmp_path / "volume")), code=2).stderr
    )
    assert "not found" in step(work, flags=("--source", str(tmp_path / "nowhere")), code=2).stderr
    assert "none of --urls, --source and --image set" in step(work, code=2).stderr
    both = step(work, "http://127.0.0.1:1/x", flags=("--source", str(tmp_path)), code=2)
    assert "urls and source of --urls, --source and --image set" in both.stderr
    assert not work.exists()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<!DOCTYPE html><title>Sign in</title>", "not a parquet file, but a web page"),
        (b"", "the file is empty"),
        ({"question": ["a"], "output": ["b"]}, "no columns to tune on, only `question`, `output`"),
        ({"prompt": ["a", ""], "completion": ["b", "c"]}, "    message without text: 1 (row 1)"),
        ({"prompt": ["a"], "completion": ["b"]}, "cannot split 1 row:"),
    ],
    ids=["web page", "empty", "columns", "rows", "too few"],
)
def test_unusable_data_leaves_no_files(step, work, parquet_server, as_parquet, chats, body: Any, message: str) -> None:
    url = parquet_server.put("/x.parquet", body if isinstance(body, bytes) else as_parquet(**body))
    done = step(work, url, code=2)
    assert message in done.stderr and "fix: " in done.stderr and done.stderr.count("error:") == 1
    assert not (work / "dataset").exists()
    # The corrected file at the same URL is downloaded again.
    parquet_server.put("/x.parquet", as_parquet(messages=chats(20)))
    assert "18 training rows" in step(work, url).stdout


def test_failed_urls_leave_no_files(step, work, parquet_server: ParquetServer, as_parquet, chats) -> None:
    done = step(work, f"{parquet_server.url}/a.parquet", f"{parquet_server.url}/b.parquet?sig=hush", code=2)
    assert "/a.parquet: 404" in done.stderr and "/b.parquet?sig=***: 404" in done.stderr
    assert "hush" not in done.stdout + done.stderr
    url = parquet_server.put("/x.parquet", as_parquet(messages=chats(20)))
    assert "digest is sha256:" in step(work, f"{url}#sha256={'1' * 64}", code=2).stderr
    assert not (work / "dataset").exists()


def test_private_hosts_must_be_allowed(step, work, parquet_server: ParquetServer, as_parquet, chats) -> None:
    url = parquet_server.put("/x.parquet", as_parquet(messages=chats(20)))
    done = step(work, flags=("--urls", json.dumps([url])), code=2)
    assert "127.0.0.1 is a loopback, private" in done.stderr and not parquet_server.seen


def test_server_that_is_down_is_a_temporary_failure(step, work, parquet_server: ParquetServer) -> None:
    parquet_server.always["/x.parquet"] = Fault(status=503, headers={"Retry-After": "0"})
    assert "503 Service Unavailable" in step(work, f"{parquet_server.url}/x.parquet", code=1).stderr


@pytest.mark.parametrize("rows", [40_000, 14_000, 9_000], ids=["while downloading", "while checking", "while writing"])
def test_full_disk_is_one_error(step, small_disk: Path, parquet_server, rows: int) -> None:
    # Digits that zstd makes half as long, and lz4, on the way, does not.
    texts = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(rows)]
    made = io.BytesIO()
    table = pa.table({"prompt": texts, "completion": ["b"] * rows})
    pq.write_table(table, made, compression="zstd", use_dictionary=False)
    body = made.getvalue()
    assert (len(body) > 1 << 20) is (rows == 40_000)
    work = small_disk / "work"
    done = step(work, parquet_server.put("/x.parquet", body), code=2)
    assert "no space left on" in done.stderr and "fix: " in done.stderr
    left = [path.name for path in work.rglob("*") if path.is_file()]
    assert all("x.parquet" in name for name in left) and not any(name.endswith(".partial") for name in left)


def test_killed_download_resumes(work, parquet_server: ParquetServer, as_parquet, chats) -> None:
    texts = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(60_000)]
    body = as_parquet(prompt=texts, completion=texts)
    held, path = len(body) // 2, "/x.parquet"
    url = parquet_server.put(path, body)
    parquet_server.faults[path].append(Fault(hold_after=held))
    flags = of_this_machine(url)
    process = subprocess.Popen([sys.executable, *command(work, *flags)], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while sum(part.stat().st_size for part in work.rglob("*.partial")) < held:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (work / "dataset/manifest.json").exists()
    done = subprocess.run([sys.executable, *command(work, *flags)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "resumed at" in done.stdout, done.stdout + done.stderr
    assert parquet_server.sent(path) == len(body)
    assert manifest_of(work)["sources"][0]["sha256"] == "sha256:" + hashlib.sha256(body).hexdigest()


def test_damaged_outputs_are_written_again_without_a_download(step, work, parquet_server, as_parquet, chats) -> None:
    url = parquet_server.put("/x.parquet", as_parquet(messages=chats(20)))
    step(work, url)
    train = (work / "dataset/train.parquet").read_bytes()
    for damage in (
        lambda: (work / "dataset/train.parquet").write_bytes(train[:-9]),
        lambda: (work / "dataset/eval.parquet").unlink(),
        lambda: (work / "dataset/manifest.json").write_text("{}"),
        lambda: (work / "dataset/manifest.json").unlink(),
    ):
        damage()
        done = step(work, url)
        assert "already done" not in done.stdout and "already downloaded" in done.stdout
        assert (work / "dataset/train.parquet").read_bytes() == train
    assert len(parquet_server.seen) == 1


def test_other_settings_replace_the_dataset(work, parquet_server, as_parquet, chats) -> None:
    url = parquet_server.put("/x.parquet", as_parquet(messages=chats(20)))
    settings = Settings(work=work, urls=[url], allow_private_hosts=True)
    result = download(settings)
    assert outputs_intact(settings, result)
    all_in_one = Settings(work=work, urls=[url], allow_private_hosts=True, eval_split=0)
    assert download(all_in_one).rows == 20
    assert not (work / "dataset/eval.parquet").exists()
    assert not outputs_intact(settings, result)


def test_duplicate_rows_and_unused_columns_are_reported(work, parquet_server, as_parquet, chats, capsys) -> None:
    rows = chats(10) * 2
    url = parquet_server.put("/x.parquet", as_parquet(messages=rows, topic=["pods"] * 20))
    result = download(Settings(work=work, urls=[url], allow_private_hosts=True, eval_split=0.5))
    assert result == Result(rows=10, eval_rows=10, data_digest=result.data_digest, data_format="messages")
    message = capsys.readouterr().out
    assert "unused columns: topic" in message and "warning: 10 rows are duplicates" in message
    train, held_out = rows_of(work / "dataset/train.parquet"), rows_of(work / "dataset/eval.parquet")
    assert manifest_of(work)["held_out_rows_in_train"] == sum(row in train for row in held_out)


@pytest.mark.parametrize("wrong", [("--eval-split", "1"), ("--seed", "-1"), ("--shuffle", "maybe")])
def test_invalid_flags(step, work, wrong: tuple[str, str]) -> None:
    assert wrong[0] in step(work, flags=wrong, code=2).stderr


def test_an_invalid_url(step, work) -> None:
    assert "error: invalid URLs:\n  x: must use one of http" in step(work, flags=("--urls", "x"), code=2).stderr


def test_the_step_starts_without_heavy_libraries() -> None:
    code = "import steps.download, sys; print(sorted({'pyarrow', 'numpy', 'torch', 'hera'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert done.stdout == "[]\n"


def test_bad_input_of_the_function_is_an_exception(tmp_path) -> None:
    with pytest.raises(BadInput):
        download(Settings(work=tmp_path))


def test_column_mapping_is_part_of_the_digest(step, work, parquet_server, as_parquet) -> None:
    url = parquet_server.put("/a.parquet", as_parquet(question=["a"] * 10, output=["b"] * 10))
    flags = ("--columns", '{"prompt": "question", "completion": "output"}')
    step(work, url, flags=flags)
    manifest = json.loads((work / "dataset" / "manifest.json").read_text())
    assert (manifest["data_format"], manifest["unused_columns"]) == ("prompt-completion", [])
    wrong = step(work, url, flags=("--columns", '{"promt": "question"}'), code=2)
    assert "--columns.promt: must be 'messages', 'conversations', 'prompt'," in wrong.stderr


def test_files_are_repeated_by_weight(step, work, parquet_server: ParquetServer, as_parquet, chats) -> None:
    signed = parquet_server.put("/a/rows.parquet?sig=hush", as_parquet(messages=chats(60)))
    plain = parquet_server.put("/b/rows.parquet", as_parquet(messages=chats(40, "node")))
    flags = ("--weights", '{"a/rows.parquet": 0.5, "b/rows.parquet": 3}')
    done = step(work, signed, plain, flags=flags)
    train, held_out = rows_of(work / "dataset/train.parquet"), rows_of(work / "dataset/eval.parquet")
    assert not [row for row in held_out if row in train]
    left = [row for row in chats(60) if row not in held_out], [row for row in chats(40, "node") if row not in held_out]
    assert len(held_out) == 10 and all(train.count(row) == 3 for row in left[1])
    drawn = [row for row in left[0] if row in train]
    assert len(drawn) == int(len(left[0]) / 2 + 0.5) and len(train) == len(drawn) + 3 * len(left[1])
    manifest = manifest_of(work)
    assert (manifest["rows"], manifest["duplicate_rows"], manifest["held_out_rows_in_train"]) == (len(train), 0, 0)
    message = [(source["rows"], source["weight"], source["train_rows"]) for source in manifest["sources"]]
    assert message == [(60, 0.5, len(drawn)), (40, 3, 3 * len(left[1]))]
    assert f"{3 * len(left[1])} of {plain} (weight 3)" in done.stdout and "hush" not in done.stdout
    again = step(work, signed, plain, flags=flags)
    assert "already done" in again.stdout


def test_weight_is_part_of_the_digest_whatever_its_spelling(tmp_path: Path, as_parquet, chats) -> None:
    (tmp_path / "data/more").mkdir(parents=True)
    (tmp_path / "data/a.parquet").write_bytes(as_parquet(messages=chats(20)))
    (tmp_path / "data/more/b.parquet").write_bytes(as_parquet(messages=chats(20, "b")))

    def made(name: str, **weights: float) -> tuple[str, bytes]:
        given = {key.replace("_", "."): weight for key, weight in weights.items()}
        work = tmp_path / name
        digest = download(Settings(work=work, source=tmp_path / "data", weights=given)).data_digest
        return digest, (work / "dataset/train.parquet").read_bytes()

    plain, twice = made("plain"), made("twice", b_parquet=2)
    assert made("one", b_parquet=1, a_parquet=1) == plain
    assert made("spelt", **{"more/b_parquet": 2, "a_parquet": 1}) == twice
    assert len({plain[0], twice[0], made("other", a_parquet=2)[0], made("more", b_parquet=2.5)[0]}) == 4
    assert pq.read_table(tmp_path / "plain/dataset/eval.parquet") == pq.read_table(
        tmp_path / "twice/dataset/eval.parquet"
    )


def test_invalid_weights_fail_before_the_download(
    step, work, parquet_server: ParquetServer, as_parquet, chats
) -> None:
    url = parquet_server.put("/x.parquet", as_parquet(messages=chats(20)))
    done = step(work, url, flags=("--weights", '{"y.parquet": 2}'), code=2)
    assert "weights.y.parquet: no such file in the data" in done.stderr and "did you mean x.parquet?" in done.stderr
    done = step(work, url, flags=("--weights", '{"x.parquet": NaN}'), code=2)
    assert "--weights.x.parquet: must be a finite number" in done.stderr
    assert not parquet_server.seen
    assert "--weights.x.parquet" in step(work, url, flags=("--weights", '{"x.parquet": "two"}'), code=2).stderr
    done = step(work, url, flags=("--weights", '{"x.parquet": 0.01}'), code=2)
    assert "0 training rows" in done.stderr and "increase the weights" in done.stderr
    assert not (work / "dataset").exists()
