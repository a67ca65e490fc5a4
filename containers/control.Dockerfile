# Steps without a GPU (all except tune and evaluate), and the command line.
#
#   docker build --file containers/control.Dockerfile --tag ghcr.io/argotune/control:0.1.0 .
#
# Pinned by tag: pin the digest too (python:3.11.14-slim-bookworm@sha256:...) if your registry mirrors it.
FROM python:3.11.14-slim-bookworm

LABEL org.opencontainers.image.title="argotune control" \
      org.opencontainers.image.description="Steps of argotune that need no GPU" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"

ENV PIP_CONSTRAINT=/app/constraints.txt \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1

WORKDIR /app

# Install libraries first, with empty argotune packages, so that a code change does not rebuild this layer.
COPY pyproject.toml README.md containers/constraints.txt ./
COPY workflows/version.py workflows/
# PIP_CONSTRAINT pins every version.
# hadolint ignore=DL3013
RUN mkdir steps presets \
 && touch workflows/__init__.py steps/__init__.py presets/__init__.py \
 && chmod a+r constraints.txt \
 && pip install --no-cache-dir ".[data,azure]"

COPY workflows workflows
COPY steps steps
COPY presets presets
RUN pip install --no-cache-dir --no-deps --force-reinstall . \
 && rm -r workflows steps presets \
 && python -c "from workflows import installation; installation.check()"

# Pods run with a read-only root and an empty /tmp. The numeric id lets Kubernetes verify runAsNonRoot; the name
# is for libraries that look up the current user.
ENV HOME=/tmp USER=argotune PYTHONDONTWRITEBYTECODE=1
USER 1000:1000
CMD ["argotune", "--help"]
