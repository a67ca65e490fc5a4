"""Print what vLLM predicts for models and their adapters, in one process; run by the Python of vLLM.

    python vllm_next_token.py FOLDER...

A line of JSON for each folder: the logarithms of the most probable tokens of base and adapter, or the error.
"""

import contextlib
import gc
import json
import os
import sys
import time
from pathlib import Path

# vLLM's threads wait in loops of sched_yield, which keep all other processes from two processors.
os.sched_yield = lambda: time.sleep(0)  # type: ignore[attr-defined]
os.environ |= {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
}
SETTINGS = {
    "dtype": "float32",
    "enable_lora": True,
    "max_lora_rank": 8,
    "max_loras": 1,
    "enforce_eager": True,
    "max_model_len": 128,
    "max_num_seqs": 4,
    "max_num_batched_tokens": 128,
    "enable_prefix_caching": False,
}


def predict(folder: str) -> dict[str, dict[int, float]]:
    """Return the most probable tokens after the prompt, of the base model and with the adapter."""
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    prompt = {"prompt_token_ids": json.loads((Path(folder) / "prompt.json").read_text())}
    model = LLM(folder, **SETTINGS)
    try:
        sampling = SamplingParams(max_tokens=1, temperature=0, logprobs=5)
        found = {}
        for name, adapter in (("base", None), ("tuned", LoRARequest("tuned", 1, f"{folder}/adapter"))):
            result = model.generate([prompt], sampling, lora_request=adapter, use_tqdm=False)[0].outputs[0]
            found[name] = {token: value.logprob for token, value in result.logprobs[0].items()}
        return found
    finally:
        model.llm_engine.engine_core.shutdown()


for argument in sys.argv[1:]:
    try:
        result = predict(argument)
    except Exception as error:
        result = {"error": f"{type(error).__name__}: {error}"}
    print("RESULT", json.dumps(result), flush=True)
    gc.collect()
    with contextlib.suppress(Exception):
        from vllm.distributed import cleanup_dist_env_and_memory

        cleanup_dist_env_and_memory()
