"""Reports of runs with damaged files, hostile text and misplaced secrets."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from report_sample import PLAN, Reader, render, write, write_run

from steps.runtime.redaction import HIDDEN, redact


def test_damaged_files_are_named_and_the_rest_is_shown(tmp_path: Path) -> None:
    write_run(tmp_path)
    write(tmp_path / "report" / "evaluation.json", '{"base_loss": 3.9, "adap')
    with (tmp_path / "report" / "train.jsonl").open("a") as log:
        log.write('\n{"step": 91, "lo')
    (tmp_path / "results" / "package.json").write_bytes(b"\x00\xff\xfe")
    (tmp_path / "dataset" / "manifest.json").unlink()
    page = Reader(render(tmp_path, plan="{not json"))
    assert page.contains("report/evaluation.json could not be read")
    assert page.contains("1 lines of report/train.jsonl could not be read")
    assert page.contains("results/package.json could not be read")
    assert page.contains("dataset/manifest.json is missing")
    assert page.contains("the plan could not be read")
    assert page.contains("its loss on held-out rows is 0.6312"), "the result of the step replaces the file"
    assert page.contains("Image not created")
    assert page.contains("Loss by step")


HOSTILE = (
    "</script><script>alert(1)</script>\"'><img src=x onerror=alert(2)>&lt;b&gt;",
    "\x00\x1b[31m\ud800\u202eevil\ufffe]]>-->",
    "</style></title></svg></main>{{workflow.name}}${x}%s",
)


@pytest.mark.parametrize("hostile", HOSTILE, ids=["markup", "control", "ends"])
def test_hostile_text_stays_text(tmp_path: Path, hostile: str) -> None:
    def poison(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: poison(inner) for key, inner in value.items()} | {f"k{hostile}": hostile}
        if isinstance(value, list):
            return [poison(inner) for inner in value]
        return hostile if isinstance(value, str) else value

    write_run(tmp_path)
    for file in [*tmp_path.glob("*/*.json")]:
        content = json.loads(file.read_text())
        started = content.get("started")
        file.write_text(json.dumps(poison(content) | ({"started": started} if started else {})))
    failures = json.dumps([{"displayName": hostile, "message": hostile, "phase": hostile, "finishedAt": hostile}])
    plan = {hostile: {"value": hostile, "origin": hostile}, "s": {hostile: {"value": [hostile], "origin": hostile}}}
    page = render(tmp_path, plan=plan | {"name": {"value": hostile, "origin": hostile}}, failures=failures)
    tags = Reader(page).tags
    assert not {tag for tag, _ in tags} & {"script", "img", "b" if "<b>" in hostile else "script"}
    assert not {name for _, attrs in tags for name in attrs if name.startswith("on")}
    assert not re.search(r"[\x00-\x08\x0b-\x1f\ud800-\udfff]", page)
    assert page.count("</main>") == 1 and page.count("</style>") == 1


CANARY = "canary5f2c9e0b7d"
SECRET_KEYS: dict[str, Any] = {
    "hfToken": CANARY,
    "HF_TOKEN": CANARY,
    "push-secret": CANARY,
    "password": {"deep": [CANARY, {"er": CANARY}]},
    "wandbApiKey": CANARY,
    "AZURE_STORAGE_CONNECTION_STRING": CANARY,
    "authorization": f"Basic {CANARY}",
    "env": [{"name": "HF_TOKEN", "value": CANARY}],
}
SECRET_TEXTS = {
    "signed": f"https://store.example.com/d.parquet?sv=2024&sig={CANARY}&se=2027",
    "userinfo": f"https://user:{CANARY}@data.example.com/x",
    "bearer": f"401 for Authorization: Bearer {CANARY}",
    "environment": f"HF_TOKEN={CANARY} python -m steps.tune",
    "json": json.dumps({"registry_password": CANARY}),
    "hub": f"hf_{CANARY}{CANARY}",
}


def written_with(work: Path, key: str, value: Any, message: str) -> str:
    """Return the report of a run in which ``key`` is everywhere a user could put it."""
    write_run(work)
    for file in work.glob("results/*.json"):
        record = json.loads(file.read_text())
        record["settings"] |= {key: value, "urls": [value]}
        record["result"] |= {key: value, "server": {key: value}}
        file.write_text(json.dumps(record))
    write(work / "dataset" / "manifest.json", {"sources": [{"url": {key: value}, key: value}]})
    planned = {key: {"value": value, "origin": "workspace.yaml:9"}, "b": {"value": {key: value}, "origin": ""}}
    return render(
        work, plan={**PLAN, "extra": planned}, failures=json.dumps([{"displayName": "x", "message": message}])
    )


@pytest.mark.parametrize("key", SECRET_KEYS)
def test_values_of_secret_keys_are_redacted(tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str) -> None:
    value = SECRET_KEYS[key]
    page = written_with(tmp_path, key, {key: value}, "")
    assert CANARY not in page + capsys.readouterr().out
    assert HIDDEN in page
    assert "workspace.yaml:9" in page, "the origin is missing"


@pytest.mark.parametrize("form", SECRET_TEXTS)
def test_secrets_in_text_are_redacted(tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str) -> None:
    page = written_with(tmp_path, "note", SECRET_TEXTS[form], SECRET_TEXTS[form])
    assert CANARY not in page + capsys.readouterr().out
    assert HIDDEN in page


def test_values_that_are_not_secret_are_shown() -> None:
    values = {
        "max_new_tokens": 64,
        "max-num-batched-tokens": "2048",
        "tokens_per_second": 203.4,
        "maxNewTokens": {"value": 64, "origin": "workspace.yaml:9"},
        "tokenizer": "tokenizer.json",
        "gradient_checkpointing": False,
        "use_auth_token": None,
        "learning_rate": 2e-4,
        "text": "A token is a piece of a word; the secret: practice. Bearer bonds. See a?b=c",
    }
    assert redact(values) == values


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("value", "origin", "name", "step", "loss", "eval_loss", "base_loss", "adapter_loss", "samples"),
                    *(
                        "question",
                        "regressions",
                        "rows",
                        "settings",
                        "result",
                        "started",
                        "seconds",
                        "urls",
                        "sources",
                    ),
                    *("answer", "size_bytes", "learning_rate", "verdict", "displayName", "message"),
                ]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)


@hypothesis_settings(max_examples=60)
@given(st.lists(JSON, min_size=6, max_size=6), st.lists(JSON, max_size=4))
def test_no_content_breaks_the_report(tmp_path: Path, contents: list[Any], lines: list[Any]) -> None:
    paths = ["results/tune.json", "results/rollout.json", "results/evaluate.json", "report/evaluation.json"]
    for path, content in zip([*paths, "dataset/manifest.json"], contents, strict=False):
        write(tmp_path / path, json.dumps(content))
    write(tmp_path / "report" / "train.jsonl", "\n".join(map(json.dumps, lines)))
    Reader(render(tmp_path, plan=json.dumps(contents[5]), failures=json.dumps(contents[0])))


def test_too_deeply_nested_json_is_a_warning(tmp_path: Path) -> None:
    write(tmp_path / "report" / "evaluation.json", "[" * 100_000)
    assert Reader(render(tmp_path, plan='{"a":' * 900 + "1" + "}" * 900)).contains("could not be read")


def test_no_query_of_a_url_is_shown() -> None:
    text = "from https://a.example/x.parquet?se=2030&k=hush#part and s3://b/y?hush"
    assert redact({"urls": [text]}) == {
        "urls": ["from https://a.example/x.parquet?(not shown)#part and s3://b/y?(not shown)"]
    }
