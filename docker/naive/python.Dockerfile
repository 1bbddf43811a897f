FROM debian:trixie-slim
RUN apt-get update && apt-get install -y python3 python3-pip
WORKDIR /app
COPY . .
RUN --mount=type=secret,id=ca export PIP_CERT=/run/secrets/ca SSL_CERT_FILE=/run/secrets/ca \
    && pip install --break-system-packages uv && uv sync --frozen
EXPOSE 3000
CMD ["uv", "run", "python", "-m", "app"]
