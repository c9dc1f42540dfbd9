// The frame: sections, the address's hash, themes.

import { get, logOut, onConnection, repeat } from "/static/parts/api.js";
import { showContainer } from "/static/views/container.js";
import { showContainers } from "/static/views/containers.js";
import { button, h, icon, put, text } from "/static/parts/dom.js";
import { showImages, showNetworks, showVolumes } from "/static/views/resources.js";
import { begin } from "/static/parts/stats.js";

const SECTIONS = [
  ["containers", "Containers", showContainers],
  ["images", "Images", showImages],
  ["volumes", "Volumes", showVolumes],
  ["networks", "Networks", showNetworks],
];
const main = document.getElementById("main");
const links = new Map();
let leave = () => {};

/** Show what the address names; each view returns how to end it. */
function route() {
  leave();
  const [section = "containers", id, tab = "overview"] = location.hash.replace(/^#\/?/, "").split("/").filter(Boolean);
  const known = SECTIONS.find(([name]) => name === section) || SECTIONS[0];
  for (const [name, link] of links) {
    if (name === known[0]) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${known[1]} · Ketch`;
  const within = main.contains(document.activeElement);
  put(main);
  if (within) main.focus({ preventScroll: true }); // what was followed is gone
  window.scrollTo(0, 0);
  leave = id && known[0] === "containers" ? showContainer(main, decodeURIComponent(id), tab) : known[2](main);
}

function changeTheme() {
  const dark = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("theme", document.documentElement.dataset.theme);
}

async function frame() {
  const theme = localStorage.getItem("theme");
  if (theme) document.documentElement.dataset.theme = theme;
  for (const [name, label] of SECTIONS) {
    const link = h("a", { href: `#/${name}` }, icon(name), h("span", {}, label), h("b", {}));
    links.set(name, link);
    document.querySelector(".side .links").append(link);
  }
  const machine = h("div", { class: "machine" });
  put(document.querySelector(".side .foot"), machine, h("div", { class: "row" },
    button("theme", "Light or dark", changeTheme), button("leave", "Log out", logOut)));
  const lost = document.querySelector(".lost");
  onConnection((answers) => put(lost, answers ? null : h("p", {}, "The daemon does not answer. The page goes on when it does; ",
    "where another address is served then, ", h("code", {}, "ketch ui"), " prints it.")));
  window.addEventListener("hashchange", route);
  route();
  begin();
  repeat(async () => {
    const info = await get("/info");
    put(machine, h("b", {}, info.Name), h("span", {}, `Ketch ${info.ServerVersion}`),
      h("span", {}, `${info.NCPU} CPUs, ${(info.MemTotal / 1e9).toFixed(1)} GB`));
    text(links.get("containers").querySelector("b"), String(info.Containers));
    text(links.get("images").querySelector("b"), String(info.Images));
  }, 5000);
}

frame();
