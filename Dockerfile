# lit-entrodrop on NVIDIA GPUs. In a checkout:
#   docker build --build-arg VERSION=0.2.0 --tag lit-entrodrop .
#   docker run --rm --gpus all --shm-size 8g --volume "$PWD:/workspace" lit-entrodrop fit --config configs/base.yaml ...
# /workspace has corpora, runs and downloaded models. Its owner must be user 1000, or add --user "$(id -u)".
# For DeepSpeed, which compiles its operators: --build-arg CUDA=13.0.1-devel-ubuntu24.04
# --build-arg EXTRAS=quickstart,peft,gguf,tune,tensorboard,triton,deepspeed
ARG CUDA=13.0.1-base-ubuntu24.04
# hadolint ignore=DL3006
FROM nvidia/cuda:${CUDA}

# Triton compiles its kernels with gcc and the headers of Python. The distribution has one version of each.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

ARG VERSION=0.0.0
ARG EXTRAS=quickstart,peft,gguf,tune,tensorboard,triton
ENV PATH=/opt/venv/bin:$PATH
COPY . /source
RUN python3 -m venv /opt/venv \
    && SETUPTOOLS_SCM_PRETEND_VERSION_FOR_LIT_ENTRODROP=$VERSION \
       pip install --no-cache-dir --constraint /source/constraints.txt "/source[$EXTRAS]" \
    && rm -rf /source

# Caches of any user: models of the hub, and kernels.
ENV HOME=/workspace/.home
WORKDIR /workspace
RUN chown 1000:1000 /workspace
USER 1000
ENTRYPOINT ["lit-entrodrop"]
CMD ["--help"]
