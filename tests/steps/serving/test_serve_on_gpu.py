"""The transformers server on a CUDA device."""

from __future__ import annotations

import pytest

from steps.serving import serve_transformers

pytestmark = pytest.mark.gpu


def test_one_gpu_is_used_directly_and_several_by_layers() -> None:
    import torch

    assert serve_transformers._device() == ("cuda:0" if torch.cuda.device_count() == 1 else "auto")
