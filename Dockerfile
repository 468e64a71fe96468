# The worker of docker-compose.yml. The wheel is built with the locked tools, installed over the locked runtime.
FROM python:3.11-slim AS build
WORKDIR /build
COPY requirements-dev.txt ./
RUN pip install --no-cache-dir --require-hashes -r requirements-dev.txt
COPY pyproject.toml ./
COPY schemas schemas
COPY streams streams
COPY lifecycle lifecycle
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels .

FROM python:3.11-slim
WORKDIR /app
COPY requirements.txt ./
RUN pip install --no-cache-dir --require-hashes -r requirements.txt
RUN --mount=from=build,source=/wheels,target=/wheels pip install --no-cache-dir --no-deps /wheels/*.whl
RUN useradd --create-home --uid 1000 ledger && install -d -o ledger /data
USER ledger
ENTRYPOINT ["driftledger"]
