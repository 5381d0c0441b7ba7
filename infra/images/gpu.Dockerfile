# The image for units on NVIDIA GPUs: DeepSpeed's ops and flash-attn are compiled here, so that no pod needs a compiler. With BuildKit, from the root:
#   docker build -f infra/images/gpu.Dockerfile -t REGISTRY/stockpot-gpu .
ARG CUDA=13.0.2
ARG UV=0.13.8

FROM ghcr.io/astral-sh/uv:${UV} AS uv

FROM nvidia/cuda:${CUDA}-devel-ubuntu22.04 AS build
ARG FLASH_ATTN=2.8.3
ARG JOBS=4
COPY --from=uv /uv /usr/local/bin/uv
ENV UV_TORCH_BACKEND=cu130 UV_COMPILE_BYTECODE=1 UV_NO_CACHE=1 UV_PYTHON_INSTALL_DIR=/opt/python VIRTUAL_ENV=/opt/stockpot
RUN uv venv --python 3.11 --managed-python /opt/stockpot
WORKDIR /src
COPY pyproject.toml requirements.lock ./
RUN uv pip install --constraint requirements.lock --requirement pyproject.toml
# Ampere, Ada and Hopper. Both are built against the torch that is there, by the nvcc of the same CUDA. Not cpu_adam: it would be made for the CPU of this machine.
ENV TORCH_CUDA_ARCH_LIST="8.0;8.9;9.0" FLASH_ATTN_CUDA_ARCHS="80;90" FLASH_ATTENTION_FORCE_BUILD=TRUE MAX_JOBS=${JOBS}
RUN uv pip install --constraint requirements.lock setuptools wheel
# Without DS_ACCELERATOR, DeepSpeed takes a machine without a GPU, which builds images, for one that will never have one.
RUN DS_ACCELERATOR=cuda DS_BUILD_UTILS=1 DS_BUILD_FUSED_ADAM=1 \
    uv pip install --constraint requirements.lock --no-deps --no-build-isolation --no-binary deepspeed --reinstall-package deepspeed deepspeed
RUN uv pip install --constraint requirements.lock --no-build-isolation "flash-attn==${FLASH_ATTN}"
RUN made=/opt/stockpot/lib/python3.11/site-packages/deepspeed/git_version_info_installed.py && grep "'fused_adam': True" $made && grep "'utils': True" $made
COPY README.md LICENSE ./
COPY flows flows
COPY tasks tasks
COPY components components
RUN uv pip install --no-deps .

FROM nvidia/cuda:${CUDA}-base-ubuntu22.04
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp stockpot
COPY --from=build /opt/python /opt/python
COPY --from=build /opt/stockpot /opt/stockpot
ENV PATH=/opt/stockpot/bin:$PATH HOME=/tmp USER=stockpot PYTHONUNBUFFERED=1 GIT_PYTHON_REFRESH=quiet NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
WORKDIR /scratch
CMD ["stockpot", "--help"]
