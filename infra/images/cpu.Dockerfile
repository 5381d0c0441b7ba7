# The image without CUDA: flow runs, the work pool's worker, units that need no GPU. With BuildKit, from the root of the repository:
#   docker build -f infra/images/cpu.Dockerfile -t REGISTRY/stockpot-cpu .
ARG PYTHON=3.11-slim-bookworm
ARG UV=0.13.8

FROM ghcr.io/astral-sh/uv:${UV} AS uv

FROM python:${PYTHON} AS build
COPY --from=uv /uv /usr/local/bin/uv
ENV UV_TORCH_BACKEND=cpu UV_COMPILE_BYTECODE=1 UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never VIRTUAL_ENV=/opt/stockpot
RUN uv venv /opt/stockpot
WORKDIR /src
# Packages first: this layer is kept until one of them changes. The lock has the packages of the tests too; as a constraint it adds none.
COPY pyproject.toml requirements.lock ./
RUN uv pip install --constraint requirements.lock --requirement pyproject.toml
COPY README.md LICENSE ./
COPY flows flows
COPY tasks tasks
COPY components components
RUN uv pip install --no-deps .

FROM python:${PYTHON}
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp stockpot
COPY --from=build /opt/stockpot /opt/stockpot
# What a flow run plans with; its deployment copies it to where it may write (infra/prefect.yaml).
COPY params.yaml dvc.yaml .dvcignore /opt/project/
COPY infra/images/dvc.config /opt/project/.dvc/config
COPY infra/profiles /opt/project/infra/profiles
COPY recipes /opt/project/recipes
ENV PATH=/opt/stockpot/bin:$PATH STOCKPOT_PROJECT=/opt/project HOME=/tmp USER=stockpot PYTHONUNBUFFERED=1 GIT_PYTHON_REFRESH=quiet
USER 10001:10001
WORKDIR /scratch
CMD ["stockpot", "--help"]
