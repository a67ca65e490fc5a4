# Steps that compute: tune and evaluate.
#
#   docker build --file containers/tune.Dockerfile --tag ghcr.io/argotune/tune:0.1.0 .
#
# PyTorch's wheel from PyPI brings CUDA along; the node has only to bring the driver. Not the slim base: Triton, in which
# trl's loss and Liger's kernels are written, builds its way to the driver with a C compiler at the first kernel.
# Pinned by tag: pin the digest too (python:3.11.14-bookworm@sha256:...) where your registry mirrors it.
FROM python:3.11.14-bookworm

LABEL org.opencontainers.image.title="argotune tune" \
      org.opencontainers.image.description="Steps of argotune that compute: tune and evaluate" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"

ENV PIP_CONSTRAINT=/app/constraints.txt \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

WORKDIR /app

# Libraries first, beside empty packages of ours: a change of our code does not repeat this layer of several GB.
COPY pyproject.toml README.md containers/constraints.txt ./
# Every version is pinned, by PIP_CONSTRAINT.
# hadolint ignore=DL3013
RUN mkdir workflows steps presets \
 && touch workflows/__init__.py steps/__init__.py presets/__init__.py \
 && chmod a+r constraints.txt \
 && pip install --no-cache-dir ".[tune,liger,tracking]"

COPY workflows workflows
COPY steps steps
COPY presets presets
RUN pip install --no-cache-dir --no-deps --force-reinstall . \
 && rm -r workflows steps presets \
 && python -c "from workflows import installation; installation.check()"

# Pods run with a read-only root and an empty /tmp. The id is a number so that runAsNonRoot can be checked; the name
# is for libraries that ask who runs them (torch does).
ENV HOME=/tmp USER=argotune PYTHONDONTWRITEBYTECODE=1 HF_HUB_DISABLE_TELEMETRY=1 DO_NOT_TRACK=1
USER 1000:1000
CMD ["python", "-m", "steps.tune", "--help"]
