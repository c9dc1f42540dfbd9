// One container: plots and facts, its log, a terminal, all of its configuration.

import { actions, badge, nameOf } from "/static/views/actions.js";
import { get, repeat } from "/static/parts/api.js";
import { h, note, put, text } from "/static/parts/dom.js";
import { ago, bytes, percent, short } from "/static/parts/format.js";
import { showLogs } from "/static/views/logs.js";
import { Plot } from "/static/parts/plot.js";
import { follow, history } from "/static/parts/stats.js";
import { showTerminal } from "/static/terminal/terminal.js";

const TABS = [["overview", "Overview"], ["logs", "Logs"], ["terminal", "Terminal"], ["inspect", "Inspect"]];
const PLOTS = [
  ["CPU", [{ name: "cpu", colour: "--accent" }], { least: 10, format: percent }, (now) => percent(now.cpu)],
  ["Memory", [{ name: "memory", colour: "--second" }], { least: 1e6, format: bytes }, (now) => bytes(now.memory)],
  ["Network", [{ name: "received", colour: "--third" }, { name: "sent", colour: "--fourth" }],
    { least: 1e3, format: (value) => `${bytes(value)}/s` },
    (now) => `↓ ${bytes(now.received)}/s  ↑ ${bytes(now.sent)}/s`],
];

/** Show a container in `main`; `tab` is one of the four. */
export function showContainer(main, id, tab) {
  let leaveTab = () => {};
  let container = null;
  let ended = false;
  const title = h("h1", {}, short(id));
  const state = h("span", {});
  const box = actions(() => ({ id, name: nameOf(container), state: container.State.Status }), async (verb) => {
    if (verb === "remove") location.hash = "#/containers";
    else await load();
  }, { wide: true });
  box.hidden = true;
  const view = h("section", { class: "view" });
  put(main,
    h("p", { class: "crumbs" }, h("a", { href: "#/containers" }, "Containers")),
    h("div", { class: "head" }, title, state, box),
    h("nav", { class: "tabs", "aria-label": "Views of the container" }, ...TABS.map(([name, label]) => h("a", {
      href: `#/containers/${id}/${name}`, "aria-current": name === tab ? "page" : null }, label))),
    view);

  async function load() {
    const now = await get(`/containers/${id}/json`);
    if (ended) return;
    const first = container === null;
    const changed = first || container.State.Status !== now.State.Status || container.State.StartedAt !== now.State.StartedAt;
    container = now;
    text(title, nameOf(now));
    document.title = `${nameOf(now)} · Ketch`;
    put(state, badge(now.State.Status));
    box.hidden = false;
    box.update();
    if (first || (changed && tab !== "terminal")) {
      leaveTab();
      leaveTab = { logs: showLogs, terminal: showTerminal, inspect: showInspect }[tab]?.(view, now) ?? showOverview(view, now);
    } else leaveTab.update?.(now);
  }

  /** Say why nothing newer is shown; what is known of a container stays, but for one that is gone. */
  function fail(error) {
    const gone = error.status === 404;
    if (container === null || gone) {
      leaveTab();
      leaveTab = () => {};
      put(view, h("p", { class: "empty" }, error.message));
    }
    if (gone) stop();
    box.hidden ||= gone;
    put(state, container === null ? null : badge(gone ? "removed" : "unknown"));
  }

  const stop = repeat(async () => {
    try {
      await load();
    } catch (error) {
      if (!ended) fail(error);
      throw error;
    }
  }, 2000);
  return () => {
    ended = true;
    stop();
    leaveTab();
  };
}

function fact(name, value) {
  return value ? [h("dt", {}, name), h("dd", {}, value)] : [];
}

function facts(container) {
  const { Config: config, HostConfig: host, State: state, NetworkSettings: network } = container;
  const command = [...(config.Entrypoint || []), ...(config.Cmd || [])].join(" ");
  const addresses = Object.entries(network.Networks || {}).map(([name, one]) => [name, one.IPAddress].filter(Boolean).join(" "));
  const published = Object.entries(network.Ports || {}).flatMap(([port, places]) =>
    (places || []).map((place) => `${place.HostIp}:${place.HostPort} → ${port}`));
  const mounts = (container.Mounts || []).map((mount) => `${mount.Name || mount.Source} → ${mount.Destination}${mount.RW ? "" : " (read-only)"}`);
  const list = (items) => (items.length ? h("ul", {}, ...items.map((item) => h("li", {}, item))) : null);
  return h("dl", { class: "facts card" },
    ...fact("Image", config.Image),
    ...fact("Command", h("code", {}, command)),
    ...fact("Id", h("code", {}, short(container.Id))),
    ...fact("Created", ago(new Date(container.Created))),
    ...fact(state.Running ? "Started" : "Ended", state.StartedAt.startsWith("0001") ? "never"
      : ago(new Date(state.Running ? state.StartedAt : state.FinishedAt))),
    ...fact("Exit code", state.Running || state.Status === "created" ? "" : String(state.ExitCode)),
    ...fact("Error", state.Error),
    ...fact("Health", state.Health?.Status),
    ...fact("Restarts", host.RestartPolicy?.Name && host.RestartPolicy.Name !== "no"
      ? `${host.RestartPolicy.Name} (${container.RestartCount} so far)` : ""),
    ...fact("Networks", list(addresses)),
    ...fact("Ports", list(published)),
    ...fact("Mounts", list(mounts)),
    ...fact("Memory limit", host.Memory ? bytes(host.Memory) : ""),
    ...fact("Labels", list(Object.entries(config.Labels || {}).map(([name, value]) => `${name}=${value}`))));
}

function showOverview(view, container) {
  const plots = PLOTS.map(([label, lines, scale, now]) => {
    const value = h("b", {});
    const canvas = h("canvas", { class: "plot", "data-plot": label.toLowerCase(), role: "img",
      "aria-label": `${label}, the last minute` });
    return { value, now, plot: new Plot(canvas, lines, scale), element: h("figure", { class: "card" }, h("figcaption", {}, label, value), canvas) };
  });
  let told = facts(container);
  put(view, container.State.Running ? h("div", { class: "plots" }, ...plots.map((plot) => plot.element)) : null, told);
  const show = () => {
    const readings = history(container.Id);
    for (const { value, now, plot } of plots) {
      text(value, readings.length ? now(readings.at(-1)) : "");
      plot.show(readings);
    }
  };
  show();
  const leave = follow(show);
  leave.update = (now) => {
    const newer = facts(now);
    if (newer.textContent === told.textContent) return; // a selection stays
    told.replaceWith(newer);
    told = newer;
  };
  return leave;
}

function showInspect(view, container) {
  const words = JSON.stringify(container, null, 2);
  put(view, h("div", { class: "card" }, h("div", { class: "bar" }, h("button", { type: "button", onclick: async () => {
    await navigator.clipboard.writeText(words);
    note("Copied");
  } }, "Copy")), h("pre", { class: "json" }, words)));
  return () => {};
}
