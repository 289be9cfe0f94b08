# The tracking server: MLflow of constraints.txt with PostgreSQL's driver. Build it from the repository's root:
#   docker build -f cluster/docker/mlflow.Dockerfile -t avere-ray:0.1.0-mlflow .
ARG PYTHON=python:3.11.13-slim-bookworm

FROM ${PYTHON} AS build
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /opt/build
COPY constraints.txt ./
RUN python -m venv /opt/venv \
 && pip install --no-cache-dir -c constraints.txt mlflow psycopg2-binary==2.9.13 boto3==1.44.5

FROM ${PYTHON}
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="avere-ray-mlflow" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /tmp
USER 1000
ENTRYPOINT ["mlflow"]
CMD ["server", "--help"]
