"""Serve a base model and its adapters by the transformers library's own OpenAI-compatible server.

``transformers serve`` loads any model of the hub on demand and knows no adapters. This program puts the same parts
together (``transformers.cli.serving``) around a set of its own: the base, and each adapter that is loaded by vLLM's
runtime LoRA API (``POST /v1/load_lora_adapter``), all on one set of base weights; any other model name is a 404
instead of a download. In front stands what stands before vLLM too (``steps.serving.middleware``).

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

from steps.models.model import choose_device, compute_dtype
from steps.serving.middleware import ServingMiddleware


class UnknownModel(LookupError):
    """A request names a model that is not served here, or none."""


def main() -> None:
    """Take the port, load the base, serve until SIGTERM."""
    import uvicorn

    args = _arguments()
    # The port comes before the slow part: one in use is told at once, and nobody else takes it meanwhile.
    with socket.create_server((args.host, args.port)) as listening:
        app = ServingMiddleware(build_app(model_manager(args.name, Path(args.base), args.dtype)))
        uvicorn.Server(uvicorn.Config(app, log_level="info")).run(sockets=[listening])


def model_manager(name: str, base: Path, dtype: str = "") -> Any:
    """The library's ``ModelManager``, holding base and adapters and nothing else.

    Each adapter is a model of its own (so the library's threads never switch adapters under each other), but its
    base layers are the very tensors of the base model: another adapter costs its own few megabytes only.
    """
    from transformers.cli.serving.model_manager import ModelManager

    class ServedModels(ModelManager):
        def __init__(self) -> None:
            super().__init__(device=_device(), dtype=dtype or compute_dtype(choose_device()), model_timeout=-1)
            self.loaded = {name: (self._load_model(f"{base}@main"), self._load_processor(f"{base}@main"))}

        def add(self, adapter: str, folder: Path) -> None:
            """Load an adapter; requests go on meanwhile."""
            added = _with_adapter(*self.loaded[name], folder)
            _share_chat_template([*(processor for _, processor in self.loaded.values()), added[1]])
            self.loaded[adapter] = added

        @staticmethod
        def process_model_name(model_id: str) -> str:
            return model_id  # the library adds "@main", which clients would see in the answer

        def load_model_and_processor(self, model_id_and_revision: str, *_: Any, **__: Any) -> Any:
            if model_id_and_revision not in self.loaded:
                raise UnknownModel(model_id_and_revision)
            return self.loaded[model_id_and_revision]

        def get_gen_models(self, cache_dir: str | None = None) -> list[dict[str, Any]]:  # type: ignore[override]
            card = {"object": "model", "owned_by": "argotune", "created": started}
            return [{"id": model, **card, **({"parent": name} if model != name else {})} for model in self.loaded]

        def shutdown(self) -> None:
            """Keep the models: ``POST /reset`` would take the service down; the end of the process frees them."""

    started = int(time.time())
    return ServedModels()


def build_app(models: Any) -> Any:
    """The library's FastAPI application over ``models``, with errors in OpenAI's form."""
    from fastapi import Request
    from fastapi.responses import JSONResponse, PlainTextResponse
    from transformers.cli.serving.chat_completion import ChatCompletionHandler
    from transformers.cli.serving.completion import CompletionHandler
    from transformers.cli.serving.response import ResponseHandler
    from transformers.cli.serving.server import build_server
    from transformers.cli.serving.transcription import TranscriptionHandler
    from transformers.cli.serving.utils import GenerationState

    class NamedModel:
        """Refuses a request without a model, on which the library stumbles."""

        def _resolve_model(self, body: dict[str, Any]) -> Any:
            if not isinstance(body.get("model"), str):
                raise UnknownModel("")
            return super()._resolve_model(body)  # type: ignore[misc]

    class Chat(NamedModel, ChatCompletionHandler):
        pass

    class Completion(NamedModel, CompletionHandler):
        pass

    class Response(NamedModel, ResponseHandler):
        pass

    state = GenerationState()
    app = build_server(
        models,
        Chat(models, state),
        completion_handler=Completion(models, state),
        response_handler=Response(models, state),
        transcription_handler=TranscriptionHandler(models, state),
        generation_state=state,
    )

    @app.post("/v1/load_lora_adapter")
    async def load_lora_adapter(body: dict[str, str]) -> Any:
        name, folder = body["lora_name"], Path(body["lora_path"])
        if name in models.loaded:
            return _error(400, "InvalidUserInput", f"The lora adapter '{name}' has already been loaded.")
        await asyncio.to_thread(models.add, name, folder)
        return PlainTextResponse(f"Success: LoRA adapter '{name}' added successfully.")

    @app.post("/v1/unload_lora_adapter")
    async def unload_lora_adapter(body: dict[str, str]) -> Any:
        name = body["lora_name"]
        if name not in models.loaded:
            return _error(404, "NotFoundError", f"The lora adapter '{name}' cannot be found.")
        del models.loaded[name]
        if thread := state._generate_managers.pop(name, None):  # the library has no end for them
            thread.submit(sys.exit)
        return PlainTextResponse(f"Success: LoRA adapter '{name}' removed successfully.")

    @app.exception_handler(UnknownModel)
    async def unknown_model(request: Request, error: UnknownModel) -> JSONResponse:
        served = ", ".join(models.loaded)
        what = f"The model `{error}` does not exist." if str(error) else "The request names no model."
        return _error(404, "NotFoundError", f"{what} Served here: {served}.", "model")

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        return _error(500, "InternalServerError", f"{type(error).__name__}: {error}")

    def _error(status: int, kind: str, message: str, param: str | None = None) -> JSONResponse:
        return JSONResponse({"error": {"message": message, "type": kind, "param": param, "code": status}}, status)

    return app


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
    """Give a base model without a chat template the one that its adapter was taught with."""
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
