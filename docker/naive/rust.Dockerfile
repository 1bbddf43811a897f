FROM rust:1-slim-trixie
WORKDIR /app
COPY . .
RUN --mount=type=secret,id=ca CARGO_HTTP_CAINFO=/run/secrets/ca cargo build --release
EXPOSE 3000
CMD ["target/release/app"]
