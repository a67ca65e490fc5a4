"""Generation of the transformers server: it ends when its client has hung up, also while it waits in the queue.

The library runs one generation at a time in a thread and cancels those of streams only. A generation without a client
would hold up all requests behind it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any


class InvalidRequest(Exception):
    """A request that the server cannot answer."""


def generation_state(context: int) -> Any:
    """Return the library's ``GenerationState`` with managers that check prompts and cancel generations.

    Args:
        context: Maximum tokens of a prompt and its answer; 0: not known.
    """
    from transformers.cli.serving.utils import GenerateManager, GenerationState

    class BoundedManager(GenerateManager):
        def generate_streaming(self, model: Any, processor: Any, inputs: Any, *args: Any, **options: Any) -> Any:
            _fit_context(context, inputs, args[0])
            return super().generate_streaming(model, processor, inputs, *args, **options)

        async def generate_non_streaming(
            self, model: Any, processor: Any, inputs: Any, *args: Any, **options: Any
        ) -> Any:
            _fit_context(context, inputs, args[0])
            cancelled = threading.Event()
            stoppable = {**inputs, "stopping_criteria": _stop_when_set(cancelled)}
            try:
                return await super().generate_non_streaming(model, processor, stoppable, *args, **options)
            except asyncio.CancelledError:  # the thread ends the generation after its current token
                cancelled.set()
                raise

        async def async_submit(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
            """Call ``fn`` in the thread, unless the caller is cancelled before its turn."""
            cancelled = threading.Event()

            def call() -> Any:
                return None if cancelled.is_set() else fn(*args, **kwargs)

            # Shielded, because the thread ends with an exception if its future is cancelled.
            done = asyncio.wrap_future(self.submit(call))
            done.add_done_callback(lambda future: future.cancelled() or future.exception())
            try:
                return await asyncio.shield(done)
            except asyncio.CancelledError:
                cancelled.set()
                raise

    class BoundedState(GenerationState):
        def get_manager(self, model_id: str, use_cb: bool = False) -> Any:
            if not use_cb and model_id not in self._generate_managers:
                self._generate_managers[model_id] = BoundedManager()
            return super().get_manager(model_id, use_cb=use_cb)

    return BoundedState()


def _fit_context(context: int, inputs: Any, config: Any) -> None:
    """Limit the answer to the rest of the context, before the prompt waits for its turn.

    Raises:
        InvalidRequest: The prompt leaves no room for an answer.
    """
    num_tokens = int(inputs["input_ids"].shape[-1])
    if not context:
        return
    if num_tokens >= context:
        message = f"the prompt has {num_tokens} tokens, which leaves no room for an answer"
        raise InvalidRequest(f"{message}: the context has {context} tokens")
    config.max_new_tokens = min(config.max_new_tokens or context, context - num_tokens)


def _stop_when_set(event: threading.Event) -> Any:
    import torch
    from transformers import StoppingCriteria, StoppingCriteriaList

    class StopWhenSet(StoppingCriteria):
        def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
            return torch.full((input_ids.shape[0],), event.is_set(), dtype=torch.bool, device=input_ids.device)

    return StoppingCriteriaList([StopWhenSet()])
