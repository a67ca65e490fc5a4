# GPU steps: tune and evaluate.
#
#   docker build --file containers/tune.Dockerfile --tag ghcr.io/argotune/tune:0.1.0 .
#
# PyTorch's wheel from PyPI includes CUDA; the node provides the driver. Not the slim base: Triton, used by trl's loss and
# Liger's kernels, compiles its launcher with a C compiler at the first kernel.
# Pinned by tag: pin the digest too (python:3.11.14-bookworm@sha256:...) if your registry mirrors it.
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

# Install libraries first, with empty argotune packages, so that a code change does not rebuild this layer of several GB.
COPY pyproject.toml README.md containers/constraints.txt ./
COPY workflows/version.py workflows/
# PIP_CONSTRAINT pins every version.
# hadolint ignore=DL3013
RUN mkdir steps presets \
 && touch workflows/__init__.py steps/__init__.py presets/__init__.py \
 && chmod a+r constraints.txt \
 && pip install --no-cache-dir ".[tune,liger,tracking]"

COPY workflows workflows
COPY steps steps
COPY presets presets
RUN pip install --no-cache-dir --no-deps --force-reinstall . \
 && rm -r workflows steps presets \
 && python -c "from workflows import installation; installation.check()"

# Pods run with a read-only root and an empty /tmp. The numeric id lets Kubernetes verify runAsNonRoot; the name
# is for libraries that look up the current user (torch does).
ENV HOME=/tmp USER=argotune PYTHONDONTWRITEBYTECODE=1 HF_HUB_DISABLE_TELEMETRY=1 DO_NOT_TRACK=1
USER 1000:1000
CMD ["python", "-m", "steps.tune", "--help"]
