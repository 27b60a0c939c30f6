# The image holds one static binary and runs as nobody in particular, on a read-only root if asked to:
#   docker build -t letshare .
#   docker run --read-only -p 127.0.0.1:8080:8080 letshare
# Subcommands follow the image's name: docker run --rm letshare token -user alice
# A release gives its name: --build-arg VERSION=1.2.3 --build-arg COMMIT=$(git rev-parse HEAD)

# The compiler runs on the machine that builds, whatever machine the image is for.
FROM --platform=$BUILDPLATFORM golang:1.26-alpine AS build
WORKDIR /src

# The modules are a layer of their own, which stays until a dependency changes.
COPY go.mod go.sum ./
RUN go mod download

COPY . .
ARG VERSION=dev
ARG COMMIT=
ARG TARGETOS
ARG TARGETARCH
ARG TARGETVARIANT
# TARGETVARIANT is v7 for a 32-bit ARM and means nothing elsewhere.
RUN case "$TARGETARCH" in arm) export GOARM="${TARGETVARIANT#v}" ;; esac && \
    CGO_ENABLED=0 GOOS="$TARGETOS" GOARCH="$TARGETARCH" go build -trimpath -buildvcs=false \
        -ldflags "-s -w -buildid= -X main.version=$VERSION -X main.commit=$COMMIT" -o /out/letshare .
# The folder of the error log, for a volume: a new volume takes over its owner and mode. Any uid may write,
# for --user chooses another; nobody else is in the container.
RUN mkdir -p /state/logs && chmod 0777 /state/logs

FROM scratch
LABEL org.opencontainers.image.title="letshare" \
      org.opencontainers.image.description="Self-hosted server of the LetShare file-sharing app" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY LICENSE /
COPY --from=build /out/letshare /letshare
COPY --from=build --chown=65532:65532 /state/ /
# A container's own loopback address cannot be published: all addresses, in local mode too.
ENV LETSHARE_SERVER_HOST=0.0.0.0
# Numeric, because there is no /etc/passwd here, and orchestrators can tell that it is not root.
USER 65532:65532
# The error log is logs/errors.log below it. Where that cannot be written the log stays in memory and says so once.
WORKDIR /
EXPOSE 8080
# It asks where the environment says the server is: in a container set the port with LETSHARE_SERVER_PORT, not in a file.
HEALTHCHECK --interval=30s --timeout=6s --start-period=10s --retries=3 CMD ["/letshare", "health"]
ENTRYPOINT ["/letshare"]
