"""Kill a training repeatedly at random moments, and compare its result with an uninterrupted run.

    python benchmarks/tuning/kills.py [KILLS] [SEED] [DTYPE]     # 20 kills in float32: about 5 minutes

Trains a small random model on the CPU. Each SIGKILL is sent at a random time after a step was logged.
"""

from __future__ import annotations

import random
import signal
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "steps")]

import trainable_model  # noqa: E402
from trainable_model import curve  # noqa: E402
from tuning import losses, start, with_rows  # noqa: E402


def main() -> None:
    """Run both, and print their differences."""
    kills, seed, dtype = sys.argv[1:] + ["20", "1", "float32"][len(sys.argv) - 1 :]
    bf16 = str(dtype == "bfloat16").lower()
    flags = {"model_config": f'{{"dtype": "{dtype}"}}', "training_arguments": f'{{"bf16": {bf16}}}', "epochs": "9"}
    with tempfile.TemporaryDirectory() as folder:
        model = trainable_model.make_model(Path(folder) / "model")
        uninterrupted = with_rows(Path(folder) / "uninterrupted")
        start(uninterrupted, model, **flags).communicate()
        work = with_rows(Path(folder) / "killed")
        num_killed = _kill_repeatedly(work, model, flags, int(kills), random.Random(int(seed)))
        out, err = start(work, model, **flags).communicate()
        assert "tokens-per-second" in out, err
        gap = max(abs(a - b) for a, b in zip(losses(uninterrupted), losses(work), strict=True))
        print(f"killed {num_killed} times in {len(losses(work))} steps")
        print(f"loss curves differ by at most {gap:.1e}")
        print(f"weights differ by at most {_max_weight_difference(uninterrupted, work):.1e}")
        if num_killed < int(kills):
            raise SystemExit(f"the training ended after {num_killed} kills, not {kills}")


def _kill_repeatedly(work: Path, model: Path, flags: dict[str, str], kills: int, rng: random.Random) -> int:
    num_killed = 0
    while num_killed < kills:
        process = start(work, model, **flags)
        before = len(curve(work))
        # Advance only one or two steps per kill, so that the training does not end too early.
        while process.poll() is None and len(curve(work)) <= before + rng.choice([0, 0, 1]):
            time.sleep(0.005)
        time.sleep(rng.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if process.returncode != -signal.SIGKILL:
            break  # the training ended first
        num_killed += 1
    return num_killed


def _max_weight_difference(work: Path, other: Path) -> float:
    from safetensors.torch import load_file

    first, second = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (work, other))
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


if __name__ == "__main__":
    main()
