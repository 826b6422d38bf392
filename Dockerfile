# An image of the program: docker build -t fluoroscope .
# For a GPU: docker build -t fluoroscope --build-arg BASE=nvidia/cuda:12.8.1-base-ubuntu24.04 .
# How to run it: docs/cluster.md. The tests read and lint this file; they build no image.
ARG BASE=debian:bookworm-slim
FROM ${BASE}

# The versions of the system's packages are those of the base image's release.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*

ENV PATH=/opt/fluoroscope/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY src src
COPY conf conf
COPY scripts scripts
RUN python3 -m venv /opt/fluoroscope \
    && pip install --no-cache-dir --constraint constraints.txt '.[explain,export,demo]'

# Any user may write there, also one whom the image does not know.
RUN mkdir -m 1777 /project
ENV HOME=/project LOGNAME=reader
USER 10001
WORKDIR /project
ENTRYPOINT ["fluoroscope"]
CMD ["--help"]
