"""The question that base model and adapter answer once the server is up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from steps.models.token_distributions import shortest
from steps.rollout.answer_check import read_evaluation
from steps.rollout.settings import GREETING, Settings
from steps.serving.serving_client import RequestRejected


def ask_models(
    settings: Settings, models: Sequence[str], ask: Callable[[str, str], str]
) -> tuple[str, dict[str, str]]:
    """Return the question, and the answers by model.

    A held-out question that the server rejects, as one beyond the served context, is replaced by a greeting.

    Args:
        settings: Settings of the rollout.
        models: Names of the models.
        ask: Returns the answer of a model to a question.

    Raises:
        RequestRejected: The server rejects the question of the settings, or the greeting.
        StepError, TimeLimit: As ``ask``.
    """
    question = choose_question(settings)
    try:
        return question, {model: ask(model, question) for model in models}
    except RequestRejected as error:
        if question in (settings.question, GREETING):
            raise
        print(f"the held-out question was rejected: {error.message}; asking {GREETING!r}", flush=True)
    return GREETING, {model: ask(model, GREETING) for model in models}


def choose_question(settings: Settings) -> str:
    """Return the question of the settings, else a held-out one of the evaluation, else a greeting.

    A question of the data shows what the adapter has learned; the base model answers a general one as well.
    """
    return settings.question or _held_out_question(read_evaluation(settings.work).get("samples") or []) or GREETING


def _held_out_question(samples: Sequence[Mapping[str, Any]]) -> str:
    """Return the shortest sampled question that needs no earlier turns; "" if there is none."""
    conversations = [sample["messages"] for sample in samples]
    ordered = [conversations[idx] for idx in shortest(conversations)]
    questions = [[message for message in messages if message["role"] != "system"] for messages in ordered]
    return next((str(turns[0]["content"]) for turns in questions if [turn["role"] for turn in turns] == ["user"]), "")
