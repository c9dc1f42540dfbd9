// Images, volumes and networks.

import { get, post, remove, values } from "/static/parts/api.js";
import { button, confirmed, h, note, put, text } from "/static/parts/dom.js";
import { ago, bytes, short } from "/static/parts/format.js";

/** A list that is loaded when it is shown, and after each change. */
function showList(main, { title, load, row, empty, above = null }) {
  const body = h("tbody", {});
  const nothing = h("p", { class: "empty", hidden: true }, empty);
  const search = h("input", { type: "search", placeholder: "Search …", "aria-label": "Search", oninput: filter });
  put(main, h("div", { class: "head" }, h("h1", {}, title), search), above?.(refresh),
    h("table", { class: "list things" }, body), nothing);

  function filter() {
    const wanted = search.value.trim().toLowerCase();
    for (const element of body.children) element.hidden = !element.textContent.toLowerCase().includes(wanted);
  }

  async function refresh() {
    try {
      const items = await load();
      put(body, ...items.map((item) => row(item, refresh)));
      nothing.hidden = items.length > 0;
      filter();
    } catch (error) {
      note(error.message, "error");
    }
  }
  refresh();
  return () => {};
}

function removal(path, question, refresh, query) {
  return button("remove", "Remove", async () => {
    if (!(await confirmed(question, "Remove"))) return;
    try {
      await remove(path, query);
      note("Removed");
    } catch (error) {
      note(error.message, "error");
    }
    refresh();
  }, { kind: "danger" });
}

function pullForm(refresh) {
  const name = h("input", { name: "image", placeholder: "Image, as alpine:3.20", "aria-label": "Image to pull", required: true,
    autocapitalize: "off", spellcheck: "false" });
  const go = h("button", { class: "primary" }, "Pull");
  const progress = h("p", { class: "progress faint", hidden: true });
  const form = h("form", { class: "bar", onsubmit: async (event) => {
    event.preventDefault();
    const [image, tag] = split(name.value.trim());
    go.disabled = true;
    progress.hidden = false;
    text(progress, `Pulling ${image} …`);
    const layers = new Map();
    try {
      for await (const line of values("POST", "/images/create", { fromImage: image, ...(tag ? { tag } : {}) })) {
        if (line.error) throw new Error(line.error);
        if (line.progressDetail?.total) layers.set(line.id, line.progressDetail);
        const sum = (field) => [...layers.values()].reduce((all, one) => all + one[field], 0);
        text(progress, layers.size ? `${line.status}: ${bytes(sum("current"))} of ${bytes(sum("total"))}` : line.status);
      }
      note(`Pulled ${name.value}`);
      progress.hidden = true;
      name.value = "";
    } catch (error) {
      text(progress, error.message);
      note(error.message, "error");
    }
    go.disabled = false;
    refresh();
  } }, name, go);
  return h("div", { class: "card" }, form, progress);
}

/** A reference as the API takes it: without a tag or digest it means `latest`. */
function split(reference) {
  if (reference.includes("@")) return [reference, ""];
  const colon = reference.lastIndexOf(":");
  return colon > reference.lastIndexOf("/") ? [reference.slice(0, colon), reference.slice(colon + 1)] : [reference, "latest"];
}

/** Show the images in `main`. */
export function showImages(main) {
  return showList(main, {
    title: "Images",
    above: pullForm,
    empty: "No images.",
    load: async () => {
      const [images, containers] = await Promise.all([get("/images/json"), get("/containers/json", { all: 1 })]);
      return images.map((image) => ({ ...image, users: containers.filter((one) => one.ImageID === image.Id).length }));
    },
    row: (image, refresh) => {
      const names = image.RepoTags?.length ? image.RepoTags : [short(image.Id)];
      return h("tr", { "data-name": names[0] },
        h("td", { class: "what" }, ...names.map((name) => h("div", { class: "name" }, name)),
          h("span", { class: "faint" }, h("code", {}, short(image.Id)))),
        h("td", { class: "figure" }, bytes(image.Size)),
        h("td", { class: "faint" }, image.users ? `${image.users} container${image.users === 1 ? "" : "s"}` : "unused"),
        h("td", { class: "faint" }, ago(new Date(image.Created * 1000))),
        h("td", { class: "do" }, removal(`/images/${encodeURIComponent(names[0])}`, `Remove image ${names[0]}?`, refresh)));
    },
  });
}

/** Show the volumes in `main`. */
export function showVolumes(main) {
  return showList(main, {
    title: "Volumes",
    above: (refresh) => createForm("volume", "/volumes/create", refresh),
    empty: "No volumes.",
    load: async () => {
      const [{ Volumes: volumes }, containers] = await Promise.all([get("/volumes"), get("/containers/json", { all: 1 })]);
      const users = (name) => containers.filter((one) => one.Mounts.some((mount) => mount.Name === name));
      return (volumes || []).map((volume) => ({ ...volume, users: users(volume.Name) }));
    },
    row: (volume, refresh) => h("tr", { "data-name": volume.Name },
      h("td", { class: "what" }, h("div", { class: "name" }, volume.Name), h("span", { class: "faint path" }, volume.Mountpoint)),
      h("td", { class: "faint" }, usersOf(volume.users)),
      h("td", { class: "faint" }, ago(new Date(volume.CreatedAt))),
      h("td", { class: "do" }, removal(`/volumes/${encodeURIComponent(volume.Name)}`,
        `Remove volume ${volume.Name}? The files in it are lost.`, refresh))),
  });
}

/** Show the networks in `main`. */
export function showNetworks(main) {
  return showList(main, {
    title: "Networks",
    above: (refresh) => createForm("network", "/networks/create", refresh),
    empty: "No networks.",
    load: async () => {
      const [networks, containers] = await Promise.all([get("/networks"), get("/containers/json", { all: 1 })]);
      const users = (name) => containers.filter((one) => name in (one.NetworkSettings.Networks || {}));
      return networks.map((network) => ({ ...network, users: users(network.Name) }));
    },
    row: (network, refresh) => h("tr", { "data-name": network.Name },
      h("td", { class: "what" }, h("div", { class: "name" }, network.Name), h("span", { class: "faint" }, network.Driver)),
      h("td", { class: "faint" }, (network.IPAM?.Config || []).map((config) => config.Subnet).join(", ")),
      h("td", { class: "faint" }, usersOf(network.users)),
      h("td", { class: "do" }, ["bridge", "host", "none"].includes(network.Name) ? null
        : removal(`/networks/${network.Id}`, `Remove network ${network.Name}?`, refresh))),
  });
}

function usersOf(containers) {
  if (!containers.length) return "unused";
  return containers.flatMap((one, place) => [place ? ", " : "",
    h("a", { href: `#/containers/${one.Id}` }, one.Names[0].replace(/^\//, ""))]);
}

function createForm(what, path, refresh) {
  const name = h("input", { placeholder: `Name of a new ${what}`, "aria-label": `Name of a new ${what}`, required: true,
    autocapitalize: "off", spellcheck: "false" });
  return h("form", { class: "bar card", onsubmit: async (event) => {
    event.preventDefault();
    try {
      await post(path, {}, { Name: name.value.trim() });
      name.value = "";
    } catch (error) {
      note(error.message, "error");
    }
    refresh();
  } }, name, h("button", { class: "primary" }, "Create"));
}
