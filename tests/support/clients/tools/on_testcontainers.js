// testcontainers for Node.js: strategies of waiting, files, networks, containers that are used again.
const assert = require("assert");
const { GenericContainer, Network, Wait } = require("testcontainers");

const SERVE = ["sh", "-c", "echo serving; exec httpd -f -p 80 -h /www"];
const CHECK = { test: ["CMD", "true"], interval: 200, timeout: 1000, retries: 3, startPeriod: 0 };

async function fetched(box) {
  return (await fetch(`http://${box.getHost()}:${box.getMappedPort(80)}/`)).text();
}

async function service() {
  const network = await new Network().start();
  const ready = [Wait.forListeningPorts(), Wait.forHttp("/", 80), Wait.forLogMessage("serving")];
  const box = await new GenericContainer("busybox")
    .withNetwork(network)
    .withNetworkAliases("web")
    .withExposedPorts(80)
    .withCopyContentToContainer([{ content: "moored\n", target: "/www/index.html", mode: 0o644 }])
    .withCommand(SERVE)
    .withWaitStrategy(Wait.forAll(ready))
    .start();
  assert.strictEqual(await fetched(box), "moored\n");
  const { stdout, stderr, exitCode } = await box.exec(["sh", "-c", "wget -qO- http://web/; echo e >&2; exit 3"]);
  assert.deepStrictEqual([stdout, stderr, exitCode], ["moored\n", "e\n", 3]);
  let size = 0;
  for await (const data of await box.copyArchiveFromContainer("/www/index.html")) size += data.length;
  assert(size >= 1024);
  await box.restart();
  assert.strictEqual(await fetched(box), "moored\n");
  await box.stop();
  await network.stop();
}

async function reused() {
  const one = () =>
    new GenericContainer("busybox")
      .withCommand(["sleep", "1000"])
      .withHealthCheck(CHECK)
      .withWaitStrategy(Wait.forHealthCheck())
      .withTmpFs({ "/scratch": "size=1m" })
      .withReuse()
      .start();
  const [first, second] = [await one(), await one()];
  assert.strictEqual(first.getId(), second.getId());
  await first.stop();
}

service()
  .then(reused)
  .then(
    () => process.exit(0),
    (e) => {
      console.error(e);
      process.exit(1);
    },
  );
