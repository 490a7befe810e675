# Any image with Python 3.11 or newer and its venv module will do.
ARG BASE_IMAGE=python:3.13-slim

FROM ${BASE_IMAGE} AS build
# pip reads these from the environment of the commands below; the image does not keep them. A certificate that the base
# image lacks comes as the secret `pip_cert`, with PIP_CERT=/run/secrets/pip_cert.
ARG PIP_INDEX_URL
ARG PIP_CERT
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python3 -m venv /opt/pypiserver-ng
WORKDIR /build
COPY pyproject.toml README.md LICENSE ./
COPY templates templates
COPY pypiserver_ng pypiserver_ng
RUN --mount=type=secret,id=pip_cert \
    /opt/pypiserver-ng/bin/pip wheel --no-deps --wheel-dir dist .
# pip itself stays: the server asks it which index to fall back to.
RUN --mount=type=secret,id=pip_cert \
    /opt/pypiserver-ng/bin/pip install --upgrade pip dist/*.whl

FROM ${BASE_IMAGE}
# Written by hand, because distributions differ in their commands for it. The volumes are open to every user of the
# container, so that --user works with a fresh one; there is only one user in it at a time.
RUN echo 'pypiserver:x:9898:' >> /etc/group \
    && echo 'pypiserver:x:9898:9898::/data:/sbin/nologin' >> /etc/passwd \
    && mkdir -p /data/packages /data/state \
    && chown -R 9898:9898 /data \
    && chmod 755 /data \
    && chmod 777 /data/packages /data/state \
    && ln -s /opt/pypiserver-ng/bin/pypiserver-ng /usr/local/bin/
COPY --from=build /opt/pypiserver-ng /opt/pypiserver-ng
# HOME also for a --user whom the image does not know.
ENV HOME=/data PYTHONUNBUFFERED=1
# By number, so that an orchestrator can see that it is not root.
USER 9898:9898
WORKDIR /data
VOLUME /data/packages
EXPOSE 8080
# Asks where the flags of process 1, the environment and the configuration file say that the server listens; without
# a process 1 of ours (--pid=host) the environment alone decides.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["/opt/pypiserver-ng/bin/python", "-I", "-c", "\
from http.client import HTTPConnection, HTTPSConnection; \
from pathlib import Path; \
from ssl import _create_unverified_context as trust_anybody; \
from pypiserver_ng.cli.options import load_config; \
from pypiserver_ng.cli.run import command; \
words = Path('/proc/1/cmdline').read_text().split(chr(0))[:-1]; \
first = next((n for n, word in enumerate(words, 1) if Path(word).name == 'pypiserver-ng'), len(words)); \
flags = command.make_context('run', [word for word in words[first:] if word != 'run']).params; \
config = load_config(flags.pop('config'), flags); \
where = {'host': config.host, 'port': config.port, 'timeout': 4}; \
connection = HTTPSConnection(**where, context=trust_anybody()) if config.certfile else HTTPConnection(**where); \
connection.request('GET', config.server_base_url + config.health_endpoint); \
raise SystemExit(connection.getresponse().status != 200)"]
# Arguments replace `run`, which is also what bare options mean. The default directory is `packages` in /data.
ENTRYPOINT ["pypiserver-ng"]
CMD ["run"]
