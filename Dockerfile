# CPU:   docker build -t zsadbench .
# CUDA:  docker build -t zsadbench --build-arg BASE=nvidia/cuda:12.6.3-base-ubuntu24.04 .
#        (torch brings the libraries of CUDA itself)
# Run:   docker run --rm [--gpus all] -v "$PWD:/work" zsadbench run --methods all --datasets demo
#        with --user "$(id -u):$(id -g)", what it writes there is yours.
ARG BASE=python:3.12-slim
FROM ${BASE}

# For pip, e.g. the address of an index whose torch has no CUDA inside and is some gigabytes smaller.
ARG PIP_OPTIONS=""

# Images of CUDA bring no Python, or one that cannot make a virtual environment.
RUN python3 -c "import ensurepip" 2> /dev/null || { \
        apt-get update && apt-get install --yes --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/*; }
COPY pyproject.toml README.md LICENSE /source/
COPY zsadbench /source/zsadbench
COPY methods /source/methods
COPY datasets /source/datasets
COPY results /source/results
RUN python3 -m venv /opt/zsadbench && /opt/zsadbench/bin/pip install --no-cache-dir ${PIP_OPTIONS} "/source[report,dask]"

# Plugins run with this user's rights. Weights from hubs stay in the mounted folder, for the next container.
RUN useradd --create-home zsadbench && mkdir /work && chown zsadbench /work
USER zsadbench
ENV PATH=/opt/zsadbench/bin:$PATH HF_HOME=/work/.weights
WORKDIR /work
ENTRYPOINT ["zsadbench"]
CMD ["--help"]
