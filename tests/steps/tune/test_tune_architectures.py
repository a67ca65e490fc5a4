"""Small random models of many architectures: tuned for a few steps, loaded by PEFT, and served by transformers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import requests
import trainable_model
from app_server import listen
from random_models import ARCHITECTURES, SMALL, save_random_model
from tuning import losses, with_rows

from steps.models.adapter import adapter_digest
from steps.serving import desired_adapters, serving_client
from steps.serving.adapter_reloader import AdapterReloader
from steps.serving.desired_adapters import DesiredAdapter
from steps.serving.middleware import ServingMiddleware
from steps.tune import adapted_layers
from steps.tune.settings import Settings
from steps.tune.step import tune

STEPS = 4


def check(tmp_path: Path, kind: str) -> None:
    base = save_random_model(tmp_path / "base", kind, ARCHITECTURES[kind])
    work = with_rows(tmp_path / "work", 16)
    tune(
        Settings(work=work, model=str(base), rank=4, learning_rate=1e-2, max_steps=STEPS, batch_size=4, max_length=128)
    )
    curve = losses(work)
    assert len(curve) == STEPS and all(math.isfinite(loss) for loss in curve)
    plain, adapted = row_losses(base, work / "adapter")
    assert adapted < plain
    assert served(tmp_path, base, work / "adapter") == ["base", "tuned"]


def row_losses(base: Path, adapter: Path) -> tuple[float, float]:
    """Return the loss of a row without and with the adapter, both loaded from disk."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(adapter)
    row = trainable_model.chat_rows(1)[0]
    inputs = tokenizer.apply_chat_template(row, return_dict=True, return_tensors="pt")
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), str(adapter))
    model.eval()
    with torch.no_grad():
        adapted = model(**inputs, labels=inputs["input_ids"]).loss.item()
        with model.disable_adapter():
            plain = model(**inputs, labels=inputs["input_ids"]).loss.item()
    return plain, adapted


def served(tmp_path: Path, base: Path, adapter: Path) -> list[str]:
    """Ask base and adapter on the server of transformers; return who answered."""
    from steps.serving.serve_transformers import build_app, model_manager

    file = tmp_path / "adapters.json"
    adapters = [DesiredAdapter("tuned", adapter_digest(adapter), path=str(adapter))]
    app = build_app(model_manager("base", base, "float32"))
    with listen(ServingMiddleware(app, AdapterReloader(app, str(file), str(tmp_path / "pulled")))) as port:
        serving_client.write_adapters(file, adapters)
        digest = desired_adapters.config_digest(desired_adapters.serialize(adapters))
        serving_client.wait_for_adapters(f"http://127.0.0.1:{port}", digest, 120)
        return [ask(port, model) for model in ("base", "tuned")]


def ask(port: int, model: str) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": "x"}], "max_tokens": 4, "temperature": 0}
    response = requests.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body, timeout=120)
    assert response.status_code == 200, response.text
    return str(json.loads(response.text)["model"]).partition("-")[0]  # the adapter's digest follows


@pytest.mark.slow
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_an_architecture_is_tuned_saved_loaded_and_served(tmp_path: Path, kind: str) -> None:
    check(tmp_path, kind)


def test_a_hybrid_model_is_tuned_saved_loaded_and_served(tmp_path: Path) -> None:
    check(tmp_path, "lfm2")


def test_only_the_language_model_gets_an_adapter() -> None:
    """Gemma 3's image tower has layers of the same names."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, Gemma3Config

    text = {**SMALL, "vocab_size": 512}
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(Gemma3Config(text_config=text, vision_config=vision))
    selected = adapted_layers.select(model, {"r": 4, "target_modules": ["q_proj", "v_proj"]})
    assert any("vision" in name for name in selected["exclude_modules"])
    user = {"target_modules": ["q_proj"], "exclude_modules": ["layers.0.self_attn.q_proj"]}
    both = adapted_layers.select(model, user)["exclude_modules"]
    assert both[0] == "layers.0.self_attn.q_proj" and "vision" in both[-1]
    adapted = get_peft_model(model, LoraConfig(**selected, task_type="CAUSAL_LM"))
    trained = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert len(trained) == 2 * 2 * 2
    assert all("language_model" in name for name in trained)
    assert "fc1" not in adapted_layers.select(model, {"target_modules": "all-linear"})["target_modules"]
