# The image of CPU nodes: decoding, the demo, heads and submitters. Build it from the repository's root:
#   docker build -f cluster/docker/cpu.Dockerfile -t avere-ray:0.1.0-cpu .
# torch's CPU wheels are on PyTorch's own index; give its address as a build argument:
#   --build-arg PIP_EXTRA_INDEX_URL=...
ARG PYTHON=python:3.11.13-slim-bookworm

FROM ${PYTHON} AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ARG PIP_EXTRA_INDEX_URL=
ENV PATH=/opt/venv/bin:$PATH
RUN apt-get update && apt-get install -y --no-install-recommends g++ git make && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/avere_ray
COPY constraints.txt pyproject.toml README.md LICENSE ./
RUN python -m venv /opt/venv
COPY avere_ray avere_ray
COPY actors actors
COPY jobs jobs
RUN pip install --no-cache-dir -c constraints.txt -e '.[cpu]' && python -m avere_ray.environment repair

FROM ${PYTHON}
ARG VERSION=0.1.0
ARG RAY=2.60.0
LABEL org.opencontainers.image.title="avere-ray" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      io.ray.version="${RAY}"
# wget for KubeRay's health checks; a compiler for what torch compiles at run time; libnuma for vLLM's CPU kernels.
RUN apt-get update && apt-get install -y --no-install-recommends g++ libnuma1 wget && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 1000 --gid users --create-home --home-dir /home/ray ray
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/avere_ray /opt/avere_ray
ENV PATH=/opt/venv/bin:$PATH HOME=/home/ray PYTHONUNBUFFERED=1 DS_ACCELERATOR=cpu
WORKDIR /opt/avere_ray
USER 1000
CMD ["avere-ray", "--help"]
