"""The transformers server returns the log-probabilities of OpenAI's API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from app_server import listen
from tiny_model import save_model

from steps.models import token_distributions
from steps.serving import serving_client
from steps.serving.middleware import ServingMiddleware
from steps.serving.serve_transformers import build_app, model_manager
from steps.serving.transformers_logprobs import parse_request

MESSAGES = [{"role": "user", "content": "What colour?"}]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def address(base: Path) -> Iterator[str]:
    with listen(ServingMiddleware(build_app(model_manager("tiny", base, "float32")))) as port:
        yield f"http://127.0.0.1:{port}"


def ask(address: str, **body: Any) -> requests.Response:
    request = {"model": "tiny", "messages": MESSAGES, "max_tokens": 5, "temperature": 0, **body}
    return requests.post(f"{address}/v1/chat/completions", json=request, timeout=300)


def test_probabilities_are_those_of_the_model(address: str, base: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    answer = serving_client.chat(address, "tiny", MESSAGES, 5, 60, top_logprobs=3)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base).eval(), AutoTokenizer.from_pretrained(base)
    prompt = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, return_dict=True)["input_ids"]
    expected = token_distributions.score(model, prompt, [one.token for one in answer.positions], 3)
    assert tokenizer.decode([one.token for one in answer.positions]) == answer.content
    assert len(answer.positions) == 5
    for served, direct in zip(answer.positions, expected, strict=True):
        assert list(served.logprobs) == list(direct.logprobs)
        assert list(served.logprobs.values()) == pytest.approx(list(direct.logprobs.values()), abs=1e-3)


def test_the_form_is_that_of_openai(address: str) -> None:
    choice = ask(address, logprobs=True, top_logprobs=2).json()["choices"][0]
    first = choice["logprobs"]["content"][0]
    assert set(first) == {"token", "logprob", "bytes", "top_logprobs"}
    assert choice["message"]["content"].startswith(first["token"])
    assert bytes(first["bytes"]).decode() == first["token"]
    assert [set(one) for one in first["top_logprobs"]] == [{"token", "logprob", "bytes"}] * 2
    assert first["top_logprobs"][0] == {key: first[key] for key in ("token", "logprob", "bytes")}, "greedy"
    plain = ask(address, logprobs=True).json()["choices"][0]["logprobs"]["content"]
    assert [one["top_logprobs"] for one in plain] == [[]] * 5
    assert "logprobs" not in ask(address).json()["choices"][0]


def test_the_token_of_a_sampled_answer_has_its_own_probability(address: str) -> None:
    content = ask(address, logprobs=True, top_logprobs=1, temperature=5.0, seed=1).json()["choices"][0]["logprobs"]
    assert all(one["logprob"] <= one["top_logprobs"][0]["logprob"] + 1e-6 for one in content["content"])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"logprobs": 1}, "logprobs must be true or false"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs must be an integer from 0 to 20"),
        ({"logprobs": True, "top_logprobs": True}, "top_logprobs must be an integer"),
        ({"top_logprobs": 3}, "top_logprobs requires logprobs: true"),
        ({"logprobs": True, "stream": True}, "logprobs is not supported with stream: true"),
        ({"logprobs": True, "return_tokens_as_token_ids": "x"}, "return_tokens_as_token_ids must be true or false"),
    ],
)
def test_invalid_options_are_rejected(address: str, body: dict[str, Any], message: str) -> None:
    response = ask(address, **body)
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]
    with pytest.raises(ValueError, match=message):
        parse_request(dict(body))


def test_a_server_that_rejects_the_options_is_asked_without(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    from steps.serving import transformers_logprobs

    def reject(_: dict[str, Any]) -> None:
        raise ValueError("no")

    original = transformers_logprobs.parse_request
    monkeypatch.setattr(
        transformers_logprobs, "parse_request", lambda body: reject(body) if "logprobs" in body else original(body)
    )
    answer = serving_client.chat(address, "tiny", MESSAGES, 5, 60, top_logprobs=3)
    assert answer.content and list(answer.positions) == []
