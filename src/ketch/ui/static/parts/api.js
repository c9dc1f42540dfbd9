// The Engine API, as the page's own origin serves it.

const AGAIN = 2000; // milliseconds

/** What the daemon refused, in its own words; without a status it did not answer. */
export class ApiError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

/** The session's key: browsers send the cookie to every port of this host, and keep this for pages of this one. */
function key() {
  return localStorage.getItem("key") || "";
}

/** Whether this browser has a session. */
export async function isLoggedIn() {
  if (key() === "") return false;
  const answer = await arrived(fetch("/_ping", { headers: { "Ketch-Page-Key": key() } }));
  return answer.ok;
}

/** Begin a session with a token; false when it is none. */
export async function logIn(token) { // what is typed may have characters that no header can have
  const headers = { "Ketch-Page-Token": encodeURIComponent(token) };
  const answer = await arrived(fetch("/login", { method: "POST", headers }));
  if (answer.ok) localStorage.setItem("key", (await arrived(answer.json())).key);
  return answer.ok;
}

/** End the session. */
export async function logOut() {
  await post("/logout");
  localStorage.removeItem("key");
  location.assign("/login");
}

const listeners = new Set();
let answers = true;

/** Have `listener` called when the daemon does not answer any more (false), and when it does again (true). */
export function onConnection(listener) {
  listeners.add(listener);
}

function found(now) {
  if (now === answers) return;
  answers = now;
  for (const listener of listeners) listener(now);
}

/** What a promise of the network's gives. */
async function arrived(promise) {
  try {
    const result = await promise;
    found(true);
    return result;
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    found(false);
    throw new ApiError("The daemon does not answer.");
  }
}

async function send(method, path, { query = {}, body, signal } = {}) {
  const words = new URLSearchParams(query).toString();
  const options = { method, signal, headers: { "Ketch-Page-Key": key() } };
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const answer = await arrived(fetch(words ? `${path}?${words}` : path, options));
  // The session is over. Other refusals (of a registry, when an image is pulled) have the status as well.
  if (answer.headers.has("WWW-Authenticate")) location.assign("/login?over");
  if (!answer.ok && answer.status !== 304) {
    let message = answer.statusText;
    try {
      message = (await answer.json()).message;
    } catch {
      // it is no JSON: the status has to do
    }
    throw new ApiError(message, answer.status);
  }
  return answer;
}

/** The answer's JSON. */
export async function get(path, query, signal) {
  return arrived((await send("GET", path, { query, signal })).json());
}

/** The answer's JSON; null without a body. */
export async function post(path, query, body) {
  const answer = await send("POST", path, { query, body });
  const words = await arrived(answer.text());
  return words ? JSON.parse(words) : null;
}

/** Remove something. */
export async function remove(path, query) {
  await send("DELETE", path, { query });
}

/** The answer's bytes, piece by piece. */
export async function* pieces(method, path, query, signal) {
  const reader = (await send(method, path, { query, signal })).body.getReader();
  try {
    for (;;) {
      const { done, value } = await arrived(reader.read());
      if (done) return;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** The answer's lines, each one a JSON value. */
export async function* values(method, path, query, signal) {
  const decoder = new TextDecoder();
  let begun = "";
  for await (const piece of pieces(method, path, query, signal)) {
    const lines = (begun + decoder.decode(piece, { stream: true })).split("\n");
    begun = lines.pop();
    for (const line of lines) if (line.trim()) yield JSON.parse(line);
  }
}

/** A WebSocket to the daemon, for bytes. */
export function socket(path, query) {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const one = new WebSocket(`${scheme}://${location.host}${path}?${new URLSearchParams(query)}`,
    ["ketch.page", `key.${key()}`]);
  one.binaryType = "arraybuffer";
  return one;
}

/** Call `work` now and then again `pause` milliseconds after it has ended, while the page is seen; returns how to stop. */
export function repeat(work, pause) {
  let timer = 0;
  let stopped = false;
  const turn = async () => {
    let next = Math.max(pause, AGAIN); // for a page that nobody sees, and for a daemon that does not answer
    if (!document.hidden) {
      try {
        await work();
        next = pause;
      } catch (error) {
        if (error.name !== "AbortError" && !(error instanceof ApiError)) reportError(error); // a fault of the page
      }
    }
    if (!stopped) timer = setTimeout(turn, next);
  };
  turn();
  return () => {
    stopped = true;
    clearTimeout(timer);
  };
}
