const http = require("http");
const flags = require("semaphore-flags");

http
  .createServer((request, response) => response.end(`${flags("ahoy")}, built by ${process.env.BUILDER}\n`))
  .listen(8000);
