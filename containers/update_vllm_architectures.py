"""Write presets/vllm_architectures.json, the text models of the installed vLLM, and if it serves their LoRA adapters.

Run ``python containers/update_vllm_architectures.py`` with the Python of an environment that has the vLLM of
containers/serve.Dockerfile; its CPU build has the same models. Classes of models with images also need torchvision,
torchaudio and timm.
"""

from __future__ import annotations

import json
from pathlib import Path

FILE = Path(__file__).parents[1] / "presets" / "vllm_architectures.json"


def main() -> None:
    """Ask vLLM's own predicate about the class of each architecture."""
    import vllm
    from vllm.model_executor.models import registry

    names = sorted({**registry._TEXT_GENERATION_MODELS, **registry._MULTIMODAL_MODELS})
    lora = {name: serves_lora(name) for name in names}
    lora |= dict.fromkeys(transformers_backend() - lora.keys() - set(registry._PREVIOUSLY_SUPPORTED_MODELS), True)
    content = {"version": vllm.__version__.partition("+")[0], "lora": dict(sorted(lora.items()))}
    FILE.write_text(json.dumps(content, indent=1) + "\n")


def serves_lora(name: str) -> bool:
    """Return True if vLLM's class of an architecture serves adapters."""
    from vllm.model_executor.models.interfaces import supports_lora
    from vllm.model_executor.models.registry import ModelRegistry

    try:
        return bool(supports_lora(ModelRegistry.models[name].load_model_cls()))
    except Exception as error:  # it needs a library, or a GPU, that is not here
        print(f"{name}: {type(error).__name__}: {error}"[:200])
        return False


def transformers_backend() -> set[str]:
    """Return architectures that vLLM has no class for: its wrapper of transformers' class serves their adapters.

    The condition is that of ``vllm.model_executor.models.registry`` (``_try_resolve_transformers``).
    """
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    names = set()
    for name in {name for value in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values() for name in _listed(value)}:
        model = getattr(transformers, name, None)
        if name.endswith(("ForCausalLM", "LMHeadModel")) and model is not None:
            try:
                compatible = model.is_backend_compatible() or model._can_set_attn_implementation()
            except Exception as error:
                print(f"{name}: {type(error).__name__}: {error}"[:200])
                continue
            names |= {name} if compatible else set()
    return names


def _listed(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


if __name__ == "__main__":
    main()
