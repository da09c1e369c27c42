# One image for everything that runs in a cluster: `aggregator`, `controller` and `redis-node`.
#
#     docker build -t aligned-aggregator:0.1.0 .
#     buildah bud -t aligned-aggregator:0.1.0 .
#
# The base is any Debian (12 or later) with Python 3.11 or later. It runs as any uid, with a
# read-only root, and needs to write to /tmp and to the journal's volume only.
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
# The native BLS extension: 17 us a signature instead of 75 and more. Debian 12 calls the Rust that
# is new enough cargo-web, later ones cargo.
RUN apt-get update -q \
    && apt-get install -qy --no-install-recommends gcc libc6-dev python3-venv \
    && { apt-get install -qy --no-install-recommends cargo-web || apt-get install -qy --no-install-recommends cargo; }
WORKDIR /src
COPY requirements/run.txt requirements/build.txt requirements/
RUN python3 -m venv /opt/build && /opt/build/bin/pip install -q --require-hashes -r requirements/build.txt \
    && python3 -m venv /opt/aligned && /opt/aligned/bin/pip install -q --require-hashes -r requirements/run.txt
COPY native native
RUN cd native && PATH=/opt/build/bin:$PATH maturin build --release -i /opt/aligned/bin/python -o /tmp/wheels
COPY pyproject.toml README.md LICENSE ./
COPY aligned aligned
COPY aggregator aggregator
COPY controller controller
COPY devnet devnet
RUN /opt/build/bin/python -m pip wheel -q --no-deps --no-build-isolation -w /tmp/wheels . \
    && /opt/aligned/bin/pip install -q --no-index --no-deps /tmp/wheels/*.whl \
    && /opt/aligned/bin/python -c 'import bn254bls' \
    && /opt/aligned/bin/python -m compileall -q /opt/aligned \
    && rm -rf /opt/aligned/lib/python3*/site-packages/pip*

FROM ${BASE}
COPY --from=build /opt/aligned /opt/aligned
ENV PATH=/opt/aligned/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
CMD ["aggregator", "--help"]
