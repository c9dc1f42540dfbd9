// The list of containers, with what they use now.

import { actions, badge, nameOf } from "/static/views/actions.js";
import { get, repeat } from "/static/parts/api.js";
import { h, put, text } from "/static/parts/dom.js";
import { bytes, percent, ports } from "/static/parts/format.js";
import { Plot } from "/static/parts/plot.js";
import { follow, history } from "/static/parts/stats.js";

/** One container's row, which changes with it. */
class Row {
  constructor(container, changed) {
    this.container = container;
    this.name = h("a", { class: "name", href: `#/containers/${container.Id}` });
    this.image = h("span", { class: "faint" });
    this.state = h("td", { class: "state" });
    this.status = h("span", { class: "faint" });
    this.cpu = h("span", { class: "figure" });
    this.memory = h("span", { class: "figure" });
    this.spark = h("canvas", { class: "spark", "aria-hidden": "true" });
    this.plot = new Plot(this.spark, [{ name: "cpu", colour: "--accent" }], { least: 5 });
    this.ports = h("td", { class: "ports faint" });
    this.actions = actions(() => this.about(), changed);
    this.element = h("tr", { "data-id": container.Id, "data-name": nameOf(container) },
      this.state,
      h("td", { class: "what" }, this.name, h("br"), this.image),
      h("td", { class: "use" }, this.spark, h("span", { class: "figures" }, this.cpu, this.memory)),
      this.ports,
      h("td", { class: "status" }, this.status),
      h("td", { class: "do" }, this.actions));
    this.update(container);
  }

  about() {
    return { id: this.container.Id, name: nameOf(this.container), state: this.container.State };
  }

  update(container) {
    if (this.shown !== container.State) put(this.state, badge(container.State));
    this.shown = container.State;
    this.container = container;
    text(this.name, nameOf(container));
    text(this.image, container.Image);
    text(this.status, container.Status);
    text(this.ports, ports(container.Ports));
    this.actions.update();
    this.measure();
  }

  measure() {
    const readings = history(this.container.Id);
    const now = this.container.State === "running" && readings.at(-1);
    text(this.cpu, now ? percent(now.cpu) : "");
    text(this.memory, now ? bytes(now.memory) : "");
    this.spark.hidden = !now;
    this.element.classList.toggle("idle", !now);
    if (now) this.plot.show(readings);
  }
}

function tile(label, lines, scale) {
  const value = h("b", {});
  const canvas = h("canvas", { "aria-hidden": "true" });
  const plot = new Plot(canvas, lines, scale);
  const element = h("div", { class: "tile" }, h("span", { class: "faint" }, label), value, canvas);
  return { element, show(words, readings) {
    text(value, words);
    plot.show(readings);
  } };
}

/** Show the list in `main`. */
export function showContainers(main) {
  const rows = new Map();
  const body = h("tbody", {});
  const search = h("input", { type: "search", placeholder: "Name, image, state …", "aria-label": "Search", oninput: filter });
  const cpu = tile("CPU", [{ name: "cpu", colour: "--accent" }], { least: 10 });
  const memory = tile("Memory", [{ name: "memory", colour: "--second" }], { least: 1e7 });
  const traffic = tile("Network", [{ name: "received", colour: "--third" }, { name: "sent", colour: "--fourth" }],
    { least: 1e3 });
  const tiles = h("div", { class: "tiles" }, cpu.element, memory.element, traffic.element);
  const empty = h("p", { class: "empty", hidden: true }, "No containers. ", h("code", {}, "ketch run -d …"), " makes one.");
  put(main,
    h("div", { class: "head" }, h("h1", {}, "Containers"), search),
    tiles,
    h("table", { class: "list containers" }, body), empty);

  function filter() {
    const wanted = search.value.trim().toLowerCase();
    for (const { element, container } of rows.values()) {
      const words = `${nameOf(container)} ${container.Image} ${container.State} ${container.Id}`.toLowerCase();
      element.hidden = !words.includes(wanted);
    }
  }

  async function load() {
    const found = await get("/containers/json", { all: 1 });
    const ids = new Set(found.map((container) => container.Id));
    for (const [id, row] of rows) {
      if (!ids.has(id)) {
        row.element.remove();
        rows.delete(id);
      }
    }
    found.sort((one, other) => (one.State !== "running") - (other.State !== "running") || nameOf(one).localeCompare(nameOf(other)));
    found.forEach((container, place) => {
      let row = rows.get(container.Id);
      if (!row) rows.set(container.Id, (row = new Row(container, load)));
      if (body.children[place] !== row.element) body.insertBefore(row.element, body.children[place] || null);
      row.update(container);
    });
    empty.hidden = found.length > 0;
    filter();
  }

  function measure() {
    const readings = history();
    const now = readings.at(-1);
    if (!now) return;
    cpu.show(percent(now.cpu), readings);
    memory.show(bytes(now.memory), readings);
    tiles.dataset.readings = Number(tiles.dataset.readings || 0) + 1;
    traffic.show(`↓ ${bytes(now.received)}/s\n↑ ${bytes(now.sent)}/s`, readings);
    for (const row of rows.values()) row.measure();
  }

  const stop = repeat(load, 2000);
  const unfollow = follow(measure);
  measure();
  return () => {
    stop();
    unfollow();
  };
}
