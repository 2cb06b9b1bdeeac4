# The provisioner as an image: `docker build -t sandbox-provisioner .`
# It writes only to /tmp, so it runs with a read-only root and under any uid.
ARG PYTHON_IMAGE=python:3.13-slim-bookworm
FROM ${PYTHON_IMAGE}

# Mirrors, for networks that need them: --build-arg APT_MIRROR=HOST (or https://HOST), and
# --build-arg PYPI_MIRROR=https://HOST/simple (or PIP_INDEX_URL, the same by pip's own name).
ARG APT_MIRROR=
ARG PYPI_MIRROR=
ARG PIP_INDEX_URL=

SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# Health checks and `docker exec … curl` need curl, in the version of the base image's Debian.
# hadolint ignore=DL3008
RUN if [ -n "$APT_MIRROR" ]; then \
      case "$APT_MIRROR" in *://*) mirror="$APT_MIRROR" ;; *) mirror="http://$APT_MIRROR" ;; esac \
      && sed -i -E "s|^URIs: https?://[^/]+|URIs: ${mirror%/}|" /etc/apt/sources.list.d/debian.sources; \
    fi \
 && apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates curl \
 && rm -rf /var/lib/apt/lists/*

WORKDIR /app
COPY requirements.txt ./
RUN index="${PYPI_MIRROR:-$PIP_INDEX_URL}" \
 && pip install --no-cache-dir --require-hashes ${index:+--index-url "$index"} -r requirements.txt

COPY provisioner.py LICENSE ./
COPY sandboxes ./sandboxes
COPY manifests ./manifests

# Lets a container that runs as the kubeconfig's owner read it at /root/.kube/config: the directories can be traversed,
# and the file's own mode decides.
RUN useradd --uid 1000 --user-group --no-create-home --home-dir /tmp provisioner \
 && mkdir -p /root/.kube \
 && chmod 711 /root /root/.kube

# MALLOC_…: return the memory of large lists to the kernel. glibc's dynamic thresholds grow with the largest freed
# block; after a list of 2,000 sandboxes they would keep tens of MB.
ENV HOME=/tmp \
    KUBECONFIG_PATH=/root/.kube/config \
    LISTEN_HOST=0.0.0.0,:: \
    LISTEN_PORT=8002 \
    MALLOC_ARENA_MAX=2 \
    MALLOC_MMAP_THRESHOLD_=131072 \
    MALLOC_TRIM_THRESHOLD_=131072 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

USER 1000:1000
EXPOSE 8002
HEALTHCHECK --interval=10s --timeout=5s --retries=6 --start-period=15s \
  CMD ["sh", "-c", "curl -fsS http://127.0.0.1:${LISTEN_PORT:-${PORT:-8002}}/health"]
CMD ["python", "provisioner.py"]
