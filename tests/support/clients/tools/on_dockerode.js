// dockerode: connections that become streams, answers that never end, promises of all kinds.
const assert = require("assert");
const { PassThrough, Readable } = require("stream");
const Docker = require("dockerode");

const docker = new Docker({ socketPath: process.env.DOCKER_HOST.replace("unix://", "") });

// A stream to write to, and what was written until now.
function sink() {
  const stream = new PassThrough();
  stream.text = "";
  stream.on("data", (data) => (stream.text += data));
  return stream;
}

// Resolves as soon as the text of a sink has this in it.
function until(stream, text) {
  return new Promise((resolve) => {
    const look = () => stream.text.includes(text) && resolve();
    stream.on("data", look);
    look();
  });
}

const end = (stream) => new Promise((resolve) => stream.on("end", resolve));
const followed = async (stream) =>
  new Promise((resolve, reject) => docker.modem.followProgress(stream, (e, all) => (e ? reject(e) : resolve(all))));

async function refused(status, promise) {
  await assert.rejects(promise, (e) => e.statusCode === status);
}

async function streams() {
  const [out, err] = [sink(), sink()];
  const script = "echo out; echo err >&2; exit 3";
  const [result, ended] = await docker.run("busybox", ["sh", "-c", script], [out, err], { Tty: false });
  assert.deepStrictEqual([result.StatusCode, out.text, err.text], [3, "out\n", "err\n"]);
  await ended.remove();
  const settings = { Image: "busybox", name: "box", Tty: true, OpenStdin: true, Cmd: ["sh"], StopSignal: "SIGKILL" };
  const box = await docker.createContainer(settings);
  const terminal = await box.attach({ stream: true, stdin: true, stdout: true, stderr: true, hijack: true });
  const seen = terminal.pipe(sink());
  await box.start();
  await box.resize({ h: 20, w: 77 });
  terminal.write("stty size\n");
  await until(seen, "20 77");
  return [box, terminal];
}

async function execs(box) {
  const run = await box.exec({ Cmd: ["sh", "-c", "cat; exit 5"], AttachStdin: true, AttachStdout: true });
  const stream = await run.start({ hijack: true, stdin: true });
  const out = sink();
  docker.modem.demuxStream(stream, out, out);
  stream.end("to the exec\n");
  await end(stream);
  assert.deepStrictEqual([out.text, (await run.inspect()).ExitCode], ["to the exec\n", 5]);
}

async function life(box) {
  const told = (await docker.getEvents({ filters: { container: [box.id] } })).pipe(sink());
  const counters = await box.stats({ stream: true });
  assert.strictEqual(JSON.parse(await new Promise((resolve) => counters.once("data", resolve))).name, "/box");
  counters.destroy();
  await box.pause();
  await box.unpause();
  await box.rename({ name: "crate" });
  await box.update({ Memory: 64 << 20, MemorySwap: 64 << 20 });
  await box.restart({ t: 0 });
  const ended = box.wait();
  await box.kill();
  assert.strictEqual((await ended).StatusCode, 137);
  const made = await box.commit({ repo: "made", tag: "1" });
  assert.match(made.Id, /^sha256:/);
  await box.remove({ v: true });
  await until(told, '"destroy"');
  const actions = told.text.trim().split("\n").map((line) => JSON.parse(line).Action);
  for (const action of ["pause", "rename", "update", "restart", "die", "commit"]) assert(actions.includes(action));
}

async function images() {
  const saved = [];
  for await (const data of await docker.getImage("made:1").get()) saved.push(data);
  await docker.getImage("made:1").remove();
  const loaded = await followed(await docker.loadImage(Readable.from(Buffer.concat(saved))));
  assert.strictEqual(loaded.at(-1).stream, "Loaded image: made:1\n");
  const built = await followed(await docker.buildImage({ context: process.argv[2], src: ["Dockerfile"] }, { t: "built" }));
  assert.strictEqual(built.at(-1).stream, "Successfully tagged built:latest\n");
  for (const name of ["made:1", "built"]) await docker.getImage(name).remove();
  await refused(404, docker.getImage("nope").inspect());
  await refused(500, docker.pull("127.0.0.1:1/nothing:1"));
}

async function networks() {
  const [network, volume] = [await docker.createNetwork({ Name: "lan" }), await docker.createVolume({ Name: "vol" })];
  const host = { Mounts: [{ Type: "volume", Source: "vol", Target: "/v" }], AutoRemove: true };
  const box = await docker.createContainer({ Image: "busybox", Cmd: ["sleep", "1000"], name: "short", HostConfig: host });
  await box.start();
  await network.connect({ Container: "short" });
  await network.disconnect({ Container: "short", Force: true });
  const removed = box.wait({ condition: "removed" });
  await box.kill();
  assert.strictEqual((await removed).StatusCode, 137);
  await network.remove();
  await volume.remove();
  await refused(404, docker.getContainer("short").start());
  await refused(503, docker.swarmInspect());
}

(async () => {
  const [box, terminal] = await streams();
  await execs(box);
  await life(box);
  terminal.destroy();
  await images();
  await networks();
  process.exit(0);
})().catch((e) => {
  console.error(e);
  process.exit(1);
});
