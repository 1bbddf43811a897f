FROM debian:trixie-slim
RUN apt-get update && apt-get install -y python3 python3-pip
WORKDIR /app
COPY . .
RUN --mount=type=secret,id=ca PIP_CERT=/run/secrets/ca pip install --break-system-packages -r requirements.lock
EXPOSE 3000
CMD ["python3", "-m", "blog"]
