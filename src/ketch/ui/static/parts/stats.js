// Counters of all running containers: one request a second for all of them, and what the last minute had.

import { get, repeat } from "/static/parts/api.js";

const KEPT = 60;
const histories = new Map(); // id → readings; "" is the sum of all
const listeners = new Set();
let last = new Map();

function sum(networks, name) {
  return Object.values(networks || {}).reduce((total, one) => total + (one[name] || 0), 0);
}

function add(id, reading) {
  const history = histories.get(id) || [];
  history.push(reading);
  if (history.length > KEPT) history.shift();
  histories.set(id, history);
}

function take({ read, containers }) {
  const at = Date.parse(read);
  const now = new Map();
  const total = { at, cpu: 0, memory: 0, received: 0, sent: 0 };
  for (const one of containers) {
    const counters = { at, received: sum(one.networks, "rx_bytes"), sent: sum(one.networks, "tx_bytes") };
    const before = last.get(one.id);
    const seconds = before ? (at - before.at) / 1000 : 0;
    const rate = (name) => (seconds > 0 ? Math.max(0, (counters[name] - before[name]) / seconds) : 0);
    const reading = { at, cpu: one.cpu_percent || 0, memory: one.memory_bytes, limit: one.memory_limit_bytes,
      pids: one.pids, received: rate("received"), sent: rate("sent") };
    for (const name of ["cpu", "memory", "received", "sent"]) total[name] += reading[name];
    now.set(one.id, counters);
    add(one.id, reading);
  }
  for (const id of histories.keys()) if (id && !now.has(id)) histories.delete(id);
  last = now;
  add("", total);
  for (const listener of listeners) listener();
}

/** The readings of a container, the oldest first; of all together without an id. */
export function history(id = "") {
  return histories.get(id) || [];
}

/** Have `listener` called after each reading; returns how to stop. */
export function follow(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Begin to read. */
export function begin() {
  repeat(async () => take(await get("/ketch/stats", { stream: 0, interval: 1 })), 0);
}
