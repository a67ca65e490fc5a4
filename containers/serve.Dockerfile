# Serves base model and adapters: vLLM with argotune's middleware.
#
#   docker build --file containers/serve.Dockerfile --tag ghcr.io/argotune/serve:0.1.0 .
#
# Pinned by tag: pin the digest too (vllm/vllm-openai:v0.32.0@sha256:...) if your registry mirrors it.
FROM vllm/vllm-openai:v0.32.0

LABEL org.opencontainers.image.title="argotune serve" \
      org.opencontainers.image.description="vLLM with /chat, and with adapters that change while it runs" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"

ENV PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1

WORKDIR /app

# Copied, not installed: vLLM's image contains all imports of the server, and their versions must not change.
COPY steps steps
COPY presets presets

# Copied files keep the modes of the checkout, which a strict umask can restrict to one user. Programs are started as
# "python". The last lines verify all imports, including those inside functions: azure.identity pulls adapters from ACR
# without a password; vLLM's image contains it for its model streamer.
USER 0
# Reads base models from object stores.
RUN chmod -R a+rX . \
 && python3 -m pip install --no-cache-dir pyarrow==26.0.1 \
 && if ! command -v python; then ln -s "$(command -v python3)" /usr/local/bin/python; fi \
 && python -c "import steps.serving.serve_pod, steps.serving.middleware, steps.serving.drain, steps.oci.registry, presets" \
 && python -c "import azure.identity, filelock, huggingface_hub, requests"

# Pods run with a read-only root and an empty /tmp. The numeric id lets Kubernetes verify runAsNonRoot; the name
# is for libraries that look up the current user (torch does).
ENV HOME=/tmp USER=argotune HF_HUB_DISABLE_TELEMETRY=1 DO_NOT_TRACK=1 VLLM_NO_USAGE_STATS=1
USER 1000:1000
ENTRYPOINT []
CMD ["vllm", "serve", "--help"]
