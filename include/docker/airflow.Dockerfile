# Airflow with the whole pipeline, and MLflow's server: every service of docker-compose.yaml that is not serving.
#
#   docker build -f include/docker/airflow.Dockerfile -t inspectline-airflow .
#   docker build -f include/docker/airflow.Dockerfile -t inspectline-airflow-gpu --build-arg ACCELERATOR=gpu .
#
# The requirements are layers of their own, so that a change of code rebuilds in seconds.
ARG PYTHON_IMAGE=python:3.12-slim
ARG ACCELERATOR=cpu

FROM ${PYTHON_IMAGE} AS requirements-cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
COPY requirements.txt /opt/inspectline/
# requirements.txt is locked with all that its packages need: nothing is left to resolve, only to check.
RUN --mount=type=cache,target=/var/cache/pip \
    pip install --cache-dir /var/cache/pip --no-deps -r /opt/inspectline/requirements.txt && pip check

FROM requirements-cpu AS requirements-gpu
RUN --mount=type=cache,target=/var/cache/pip \
    pip install --cache-dir /var/cache/pip -c /opt/inspectline/requirements.txt 'tensorflow[and-cuda]'

FROM requirements-cpu AS wheel
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY include include
COPY monitoring monitoring
COPY pipelines pipelines
COPY serving serving
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels .

FROM requirements-${ACCELERATOR}
# Volumes take the owner of the folder that they are first mounted over.
RUN groupadd --gid 50000 airflow \
    && useradd --uid 50000 --gid airflow --home-dir /opt/airflow --shell /usr/sbin/nologin --no-create-home airflow \
    && install -d -o airflow -g airflow /opt/airflow /opt/airflow/logs /var/cache/inspectline \
    # There and empty, so that Airflow writes none with secrets of its own: all settings are environment variables.
    && touch /opt/airflow/airflow.cfg
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-deps --no-cache-dir /wheels/*.whl
COPY dags /opt/airflow/dags
COPY plugins /opt/airflow/plugins
COPY include/projects /opt/inspectline/projects
COPY include/docker/buckets.py include/docker/healthy.py include/docker/initialise.sh /opt/inspectline/
# HOME and every cache are in /tmp and /var/cache, so that the root may be read-only.
ENV AIRFLOW_HOME=/opt/airflow \
    GIT_PYTHON_REFRESH=quiet \
    HOME=/tmp \
    INSPECTLINE_CACHE=/var/cache/inspectline \
    INSPECTLINE_PROJECTS=/opt/inspectline/projects \
    MALLOC_ARENA_MAX=2 \
    MPLCONFIGDIR=/tmp/matplotlib \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /opt/airflow
USER airflow
EXPOSE 5000 8080 8793
CMD ["airflow", "version"]
# Last, since it changes with every commit.
ARG GIT_REVISION=
ENV GIT_REVISION=${GIT_REVISION}
