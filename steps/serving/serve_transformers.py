"""Serve a base model and its adapters with the OpenAI-compatible server of the transformers library.

``transformers serve`` loads any model of the hub on demand and has no adapters. This program uses its parts
(``transformers.cli.serving``) with a fixed set of models: the base model, and each adapter loaded by vLLM's runtime
LoRA API (``POST /v1/load_lora_adapter``), all on one set of base weights. Other model names return 404 and are not
downloaded. The middleware is the same as for vLLM (``steps.serving.middleware``).

    python -m steps.serving.serve_transformers --base FOLDER --name NAME --port 8000
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import socket
import sys
import time
from pathlib import Path
from typing import Any

from steps.models.compute_dtype import compute_dtype, use_physical_cores
from steps.models.model import choose_device
from steps.runtime import installed_packages
from steps.serving.generation import InvalidRequest, generation_state
from steps.serving.middleware import ServingMiddleware
from steps.serving.request_limits import read_context
from steps.serving.transformers_logprobs import LogprobsHandler


class UnknownModel(LookupError):
    """A request names no model, or one that is not served."""


def main() -> None:
    """Bind the port, load the base model, and serve until SIGTERM."""
    import uvicorn

    args = _arguments()
    installed_packages.use_faster_lookup()
    use_physical_cores()
    # Bind the port before loading the model: a port in use fails early, and no other process can take it.
    with socket.create_server((args.host, args.port)) as listening:
        app = ServingMiddleware(build_app(model_manager(args.name, Path(args.base), args.dtype)))
        uvicorn.Server(uvicorn.Config(app, log_level="info")).run(sockets=[listening])


def model_manager(name: str, base: Path, dtype: str = "") -> Any:
    """Return a ``ModelManager`` with the base model and the adapters only.

    Each adapter is a separate model, so that threads of the library never switch adapters during a request. Its base
    layers share the tensors of the base model: an adapter needs memory for its LoRA weights only.
    """
    from transformers.cli.serving.model_manager import ModelManager

    class ServedModels(ModelManager):
        def __init__(self) -> None:
            super().__init__(device=_device(), dtype=dtype or compute_dtype(choose_device(), base), model_timeout=-1)
            self.context = read_context(base)
            self.loaded = {name: (self._load_model(f"{base}@main"), self._load_processor(f"{base}@main"))}

        def add(self, adapter: str, folder: Path) -> None:
            """Load an adapter while requests continue."""
            added = _with_adapter(*self.loaded[name], folder)
            _share_chat_template([*(processor for _, processor in self.loaded.values()), added[1]])
            self.loaded[adapter] = added

        @staticmethod
        def process_model_name(model_id: str) -> str:
            return model_id  # the library adds "@main", which clients would see in responses

        def load_model_and_processor(self, model_id_and_revision: str, *_: Any, **__: Any) -> Any:
            if model_id_and_revision not in self.loaded:
                raise UnknownModel(model_id_and_revision)
            return self.loaded[model_id_and_revision]

        def get_gen_models(self, cache_dir: str | None = None) -> list[dict[str, Any]]:  # type: ignore[override]
            card = {"object": "model", "owned_by": "argotune", "created": started}
            return [{"id": model, **card, **({"parent": name} if model != name else {})} for model in self.loaded]

        def shutdown(self) -> None:
            """Keep the models loaded; they are freed when the process exits."""

    started = int(time.time())
    return ServedModels()


def build_app(models: Any) -> Any:
    """Return the library's FastAPI application with ``models``, the LoRA API, and errors in OpenAI's form."""
    from transformers.cli.serving.server import build_server
    from transformers.cli.serving.transcription import TranscriptionHandler

    state = generation_state(models.context)
    chat, completion, response = _handlers()
    app = build_server(
        models,
        chat(models, state),
        completion_handler=completion(models, state),
        response_handler=response(models, state),
        transcription_handler=TranscriptionHandler(models, state),
        generation_state=state,
    )
    _add_lora_api(app, models, state)
    _add_error_handlers(app, models)
    return app


def _handlers() -> tuple[Any, Any, Any]:
    """Return the library's classes for chat, completions and responses; they reject what the library ignores."""
    from transformers.cli.serving.chat_completion import ChatCompletionHandler
    from transformers.cli.serving.completion import CompletionHandler
    from transformers.cli.serving.response import ResponseHandler

    class NamedModel:
        def _resolve_model(self, body: dict[str, Any]) -> Any:
            if not isinstance(body.get("model"), str):
                raise UnknownModel("")
            return super()._resolve_model(body)  # type: ignore[misc]

    class KnownFields(NamedModel):
        def _validate_request(self, body: dict[str, Any]) -> None:
            if (body.get("n") or 1) != 1:
                raise InvalidRequest("n must be 1: the transformers server returns one answer")
            if (limit := body.pop("max_completion_tokens", None)) is not None:  # ignored by the library
                body["max_tokens"] = limit
            super()._validate_request(body)  # type: ignore[misc]

    class Chat(LogprobsHandler, KnownFields, ChatCompletionHandler):  # type: ignore[misc]
        pass

    class Completion(KnownFields, CompletionHandler):
        pass

    class Response(NamedModel, ResponseHandler):
        pass

    return Chat, Completion, Response


def _add_lora_api(app: Any, models: Any, state: Any) -> None:
    """Add vLLM's runtime LoRA API."""
    from fastapi.responses import PlainTextResponse

    @app.post("/v1/load_lora_adapter")
    async def load_lora_adapter(body: dict[str, str]) -> Any:
        name, folder = body["lora_name"], Path(body["lora_path"])
        if name in models.loaded:
            return _error_response(400, "InvalidUserInput", f"The lora adapter '{name}' has already been loaded.")
        await asyncio.to_thread(models.add, name, folder)
        return PlainTextResponse(f"Success: LoRA adapter '{name}' added successfully.")

    @app.post("/v1/unload_lora_adapter")
    async def unload_lora_adapter(body: dict[str, str]) -> Any:
        name = body["lora_name"]
        if name not in models.loaded:
            return _error_response(404, "NotFoundError", f"The lora adapter '{name}' cannot be found.")
        del models.loaded[name]
        if thread := state._generate_managers.pop(name, None):  # the library never stops them
            thread.submit(sys.exit)
        return PlainTextResponse(f"Success: LoRA adapter '{name}' removed successfully.")


def _add_error_handlers(app: Any, models: Any) -> None:
    from fastapi import HTTPException

    @app.exception_handler(UnknownModel)
    async def unknown_model(request: Any, error: UnknownModel) -> Any:
        served = ", ".join(models.loaded)
        message = f"The model `{error}` does not exist." if str(error) else "The request has no model."
        return _error_response(404, "NotFoundError", f"{message} Available models: {served}.", "model")

    @app.exception_handler(InvalidRequest)
    async def invalid(request: Any, error: InvalidRequest) -> Any:
        return _error_response(400, "invalid_request_error", str(error))

    @app.exception_handler(HTTPException)
    async def rejected(request: Any, error: HTTPException) -> Any:
        return _error_response(error.status_code, "invalid_request_error", str(error.detail))

    @app.exception_handler(Exception)
    async def failed(request: Any, error: Exception) -> Any:
        return _error_response(500, "InternalServerError", f"{type(error).__name__}: {error}")


def _error_response(status: int, kind: str, message: str, param: str | None = None) -> Any:
    from fastapi.responses import JSONResponse

    return JSONResponse({"error": {"message": message, "type": kind, "param": param, "code": status}}, status)


def _with_adapter(model: Any, processor: Any, folder: Path) -> tuple[Any, Any]:
    from peft import PeftModel
    from transformers import AutoTokenizer

    tensors = [*model.parameters(), *model.buffers()]
    copied = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})  # new modules, the same tensors
    # PEFT's own loader keeps LoRA weights in float32, as evaluation does; transformers' load_adapter rounds them.
    adapted = PeftModel.from_pretrained(copied, str(folder)).get_base_model().eval()
    has_tokenizer = (folder / "tokenizer_config.json").is_file()
    return adapted, AutoTokenizer.from_pretrained(folder) if has_tokenizer else copy.copy(processor)


def _share_chat_template(processors: list[Any]) -> None:
    """Use the chat template of an adapter for a base model without one."""
    template = next((p.chat_template for p in processors if p.chat_template), None)
    for processor in processors:
        processor.chat_template = processor.chat_template or template


def _device() -> str:
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    return "cuda:0" if torch.cuda.device_count() == 1 else "auto"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m steps.serving.serve_transformers", description=__doc__)
    parser.add_argument("--base", required=True, metavar="FOLDER", help="folder of the base model")
    parser.add_argument("--name", required=True, help="name under which the base model is served")
    parser.add_argument("--dtype", default="", help="type of the base weights (default: the device's fastest)")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
