"""Liger kernels: used only where they are supported, with the same loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tuning import losses, quick, with_rows

from steps.runtime.errors import BadInput
from steps.tune import liger


def test_a_cpu_ignores_the_setting(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not liger.is_enabled(True, "cpu", tiny)
    assert "ignoring use_liger_kernel: Liger kernels need a GPU" in capsys.readouterr().out
    assert not liger.is_enabled(None, "cuda", tiny)


def test_a_missing_package_is_reported(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.utils.is_liger_kernel_available", lambda *_: False)
    with pytest.raises(BadInput, match="liger-kernel is not installed"):
        liger.is_enabled(True, "cuda", tiny)


def test_an_unsupported_architecture_is_reported(tmp_path: Path) -> None:
    pytest.importorskip("liger_kernel.transformers.monkey_patch")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(BadInput, match="Liger does not support gpt2"):
        liger.is_enabled(True, "cuda", tmp_path)


@pytest.mark.gpu
@pytest.mark.parametrize("method", ["lora", "qlora"])
@pytest.mark.parametrize("objective", ["sft", "dpo"])
def test_the_loss_is_the_same_with_liger(tiny: Path, tmp_path: Path, method: str, objective: str) -> None:
    from test_dpo import with_pairs

    curves = []
    for use in (False, True):
        work = (with_pairs if objective == "dpo" else with_rows)(tmp_path / str(use), 16)
        flags: dict[str, Any] = {"objective": objective, "method": method, "dropout": 0.0, "max_steps": 6}
        quick(work, tiny, **flags, training_arguments={"use_liger_kernel": use, "bf16": False, "fp16": False},
              model_config={"torch_dtype": "float32"})  # fmt: skip
        curves.append(losses(work))
    assert curves[1] == pytest.approx(curves[0], abs=1e-3)
