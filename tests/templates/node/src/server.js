// An app of one file, for the Node template.
import { createServer } from "node:http";
import mime from "mime";

const server = createServer((request, response) => {
  response.setHeader("Content-Type", mime.getType("txt"));
  response.end(`Hello of ${process.getuid()}\n`);
});
server.listen(Number(process.env.PORT), "0.0.0.0");
process.on("SIGTERM", () => server.close(() => process.exit(0)));
