# Spanway in a container:  docker build -t spanway:0.1.0 .
# The demo's services too: docker build -t spanway-demo:0.1.0 --target demo .
# tests/kubernetes/test_dockerfile.py runs these steps where there is no container engine.
#
# The base image goes by a tag, which moves. To build from one image and no other, name it by its digest:
#   docker buildx imagetools inspect python:3.11-slim-bookworm --format '{{.Manifest.Digest}}'
#   docker build --build-arg BASE=python:3.11-slim-bookworm@sha256:... -t spanway:0.1.0 .
ARG BASE=python:3.11-slim-bookworm

# Everything that needs a compiler, or the network.
FROM ${BASE} AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
# No compiled modules, no image.
ENV SPANWAY_COMPILED=1
WORKDIR /build
COPY . .
# The lock holds for what builds it too (Cython, setuptools): by PIP_CONSTRAINT, since pip 25.3 by PIP_BUILD_CONSTRAINT.
RUN PIP_CONSTRAINT=/build/requirements.lock PIP_BUILD_CONSTRAINT=/build/requirements.lock \
    pip wheel --no-cache-dir --constraint requirements.lock --wheel-dir /wheels ".[demo]"
RUN python -m venv --without-pip /opt/spanway \
    && pip --python /opt/spanway/bin/python install --no-cache-dir --no-index --find-links /wheels spanway
RUN python -m venv --without-pip /opt/spanway-demo \
    && pip --python /opt/spanway-demo/bin/python install --no-cache-dir --no-index --find-links /wheels "spanway[demo]"

FROM ${BASE} AS demo
COPY --from=build /opt/spanway-demo /opt/spanway-demo
ENV PATH=/opt/spanway-demo/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
EXPOSE 8080
ENTRYPOINT ["python", "-m", "proxy.demo.service"]

# No compiler, no pip cache, no source; nothing is written while it runs. The parent of the process tree is made for being
# process 1: it passes signals on and reaps whatever ends, so no init is needed in front of it.
FROM ${BASE} AS spanway
COPY --from=build /opt/spanway /opt/spanway
ENV PATH=/opt/spanway/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
EXPOSE 8080 8443 9901
ENTRYPOINT ["spanway"]
CMD ["controller"]
