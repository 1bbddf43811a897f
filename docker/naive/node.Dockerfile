FROM node:24-trixie-slim
WORKDIR /app
COPY . .
RUN --mount=type=secret,id=ca NODE_EXTRA_CA_CERTS=/run/secrets/ca npm install
EXPOSE 3000
CMD ["node", "src/server.js"]
