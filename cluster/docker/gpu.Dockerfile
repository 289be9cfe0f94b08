# The image of GPU nodes: engines, learners and serving. Build it from the repository's root:
#   docker build -f cluster/docker/gpu.Dockerfile -t avere-ray:0.1.0-gpu .
# CUDA's libraries come with torch's wheels; the node brings the driver.
ARG PYTHON=python:3.11.13-slim-bookworm

FROM ${PYTHON} AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ENV PATH=/opt/venv/bin:$PATH
RUN apt-get update && apt-get install -y --no-install-recommends g++ git make && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/avere_ray
COPY constraints.txt pyproject.toml README.md LICENSE ./
RUN python -m venv /opt/venv
COPY avere_ray avere_ray
COPY actors actors
COPY jobs jobs
RUN pip install --no-cache-dir -c constraints.txt -e '.[gpu]'

FROM ${PYTHON}
ARG VERSION=0.1.0
ARG RAY=2.60.0
LABEL org.opencontainers.image.title="avere-ray" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      io.ray.version="${RAY}"
# wget for KubeRay's health checks; a compiler for Triton, which builds its launchers at run time.
RUN apt-get update && apt-get install -y --no-install-recommends g++ wget && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 1000 --gid users --create-home --home-dir /home/ray ray
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/avere_ray /opt/avere_ray
ENV PATH=/opt/venv/bin:$PATH HOME=/home/ray PYTHONUNBUFFERED=1 NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility,video TORCH_EXTENSIONS_DIR=/tmp/torch_extensions \
    TRITON_CACHE_DIR=/tmp/triton VLLM_CACHE_ROOT=/tmp/vllm
WORKDIR /opt/avere_ray
USER 1000
CMD ["avere-ray", "--help"]
