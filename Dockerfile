ARG BASE=debian:trixie-slim

# ---- the Python environment, built where compilers may be ----
FROM ${BASE} AS python
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# The newest of a stable release, whatever its number:
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 python3-pip python3-venv \
 && rm -rf /var/lib/apt/lists/*
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
# Every file is known by its hash, also what builds the one source distribution (dkimpy).
COPY requirements/build.txt requirements/runtime.txt /tmp/requirements/
RUN python3 -m venv --without-pip /opt/build \
 && python3 -m venv --without-pip /opt/tambo \
 && pip --python /opt/build/bin/python install --require-hashes -r /tmp/requirements/build.txt \
 && pip --python /opt/tambo/bin/python install --require-hashes -r /tmp/requirements/build.txt \
 && pip --python /opt/tambo/bin/python install --require-hashes --no-build-isolation \
    -r /tmp/requirements/runtime.txt
COPY pyproject.toml README.md LICENSE /src/
COPY entrypoint /src/entrypoint
# What built is not needed to run.
RUN pip --python /opt/tambo/bin/python install --no-deps --no-build-isolation --no-index /src \
 && pip --python /opt/tambo/bin/python uninstall -y setuptools wheel packaging \
 && rm -rf /opt/tambo/share \
 && find /opt/tambo -depth -type d \( -name tests -o -name test \) -exec rm -rf {} + \
 && find /opt/tambo/lib/python3*/site-packages/botocore/data -mindepth 1 -maxdepth 1 -type d \
    ! -name route53 -exec rm -rf {} + \
 && find /opt/tambo -name '*.pyc' -delete \
 && /opt/tambo/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/tambo/lib

# ---- the post-data hook, which chasquid starts for each message ----
FROM ${BASE} AS hook
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
COPY hook /src/hook
RUN /src/hook/build.sh -static-pie -s -o /post-data

# ---- git and ssh, for the backup ----
# Their packages would bring Perl and more, 112 MB; what is used of them are three programs of 8 MB.
FROM ${BASE} AS git
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# What scanners read to know which versions there are.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends git openssh-client \
 && rm -rf /var/lib/apt/lists/* \
 && mkdir -p /only/usr/bin /only/usr/lib/git-core /only/var/lib/dpkg/status.d \
 && cp /usr/bin/git /usr/bin/ssh /only/usr/bin/ \
 && cp /usr/lib/git-core/git-remote-http /only/usr/lib/git-core/ \
 && ln -s git-remote-http /only/usr/lib/git-core/git-remote-https \
 && ln -s git /only/usr/bin/git-upload-pack \
 && for name in git openssh-client; do dpkg-query -s "$name" > "/only/var/lib/dpkg/status.d/$name"; done

# ---- the image ----
FROM ${BASE}
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# The numbers stand in entrypoint/common/identity.py too. chasquid's package would make its user only if
# adduser were installed, and say nothing.
RUN groupadd --gid 10025 chasquid && groupadd --gid 10465 tambo && groupadd --gid 10466 auth \
 && useradd --uid 10025 --gid 10025 --no-create-home --home-dir /nonexistent \
    --shell /usr/sbin/nologin chasquid \
 && useradd --uid 10465 --gid 10465 --groups chasquid,auth --no-create-home \
    --home-dir /nonexistent --shell /usr/sbin/nologin tambo \
 && useradd --uid 10466 --gid 10466 --no-create-home --home-dir /nonexistent \
    --shell /usr/sbin/nologin auth

# chasquid >= 1.19 and acme.sh come from forky, by pin, and nothing else does. Its sources are the
# base image's own with the suite's name replaced. chasquid < 1.19 has an unauthenticated crash.
# hadolint ignore=DL3008
RUN sed -E 's/^Suites:.*/Suites: forky/; /^$/,$d' /etc/apt/sources.list.d/debian.sources \
      > /etc/apt/sources.list.d/forky.sources \
 && printf 'Package: *\nPin: release n=forky\nPin-Priority: 100\n\nPackage: chasquid acme.sh\nPin: release n=forky\nPin-Priority: 990\n' \
      > /etc/apt/preferences.d/forky \
 && apt-get update \
 && apt-get install -y --no-install-recommends acme.sh bind9-dnsutils ca-certificates chasquid curl libcurl3t64-gnutls openssl python3 \
 && dpkg --compare-versions "$(dpkg-query -Wf '${Version}' chasquid)" ge 1.19 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/* /etc/chasquid /var/lib/chasquid \
      /etc/apt/sources.list.d/forky.sources /etc/apt/preferences.d/forky

COPY --from=git /only /
# Each with all its libraries, or the build ends here.
RUN git --version \
 && ! ldd /usr/bin/git /usr/bin/ssh /usr/lib/git-core/git-remote-http | grep 'not found'

COPY --from=python /opt/tambo /opt/tambo
COPY rootfs/ /
COPY --from=hook /post-data /usr/lib/tambo/hooks/post-data
# One program, a link for each verb: docker exec mail add-user …
RUN ln -s /opt/tambo/bin/tambo /usr/local/bin/tambo \
 # Nobody becomes another user by a program of the image (no-new-privileges says so again).
 && find / -xdev -type f -perm /6000 -exec chmod a-s {} + \
 && for verb in $(tambo verbs); do ln -s tambo "/usr/local/bin/$verb"; done \
 && mkdir /data /run/tambo

# Last, so that another commit is one small layer. `make image` passes both: the version stands in
# pyproject.toml, where a label cannot read it.
ARG VERSION
ARG REVISION
RUN printf '%s' "$REVISION" > /usr/lib/tambo/revision
LABEL org.opencontainers.image.title="tambo" \
      org.opencontainers.image.description="A mail server in one container: chasquid, acme.sh and an entrypoint that keeps them healthy" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV LANG=C.UTF-8 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
VOLUME /data
EXPOSE 25 465 587
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["tambo", "health"]
ENTRYPOINT ["/usr/local/bin/tambo"]
CMD ["boot"]
