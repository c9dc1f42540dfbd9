// Elements, made of texts that stay texts: nothing here reads HTML.

/** An element: `h("a", {class: "x", href: "…", onclick: f}, child, "text", …)`; null and false children are left out. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  put(element, ...children);
  return element;
}

/** Replace what is in an element. */
export function put(element, ...children) {
  element.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
}

/** Set an element's text, if it is another one. */
export function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

const SHAPES = {
  containers: "M3 7l9-4 9 4v10l-9 4-9-4zM3 7l9 4 9-4M12 11v10",
  images: "M12 3l9 5-9 5-9-5zM3 12l9 5 9-5M3 16l9 5 9-5",
  volumes: "M4 6c0-4 16-4 16 0v12c0 4-16 4-16 0zM4 6c0 4 16 4 16 0M4 12c0 4 16 4 16 0",
  networks: "M9 3h6v5H9zM3 16h6v5H3zM15 16h6v5h-6zM12 8v4M6 16v-4h12v4",
  start: "M7 4l13 8-13 8z",
  stop: "M6 6h12v12H6z",
  restart: "M20 11a8 8 0 1 0-2 6M20 4v7h-7",
  remove: "M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13M10 11v6M14 11v6",
  theme: "M12 3a9 9 0 1 0 0 18zM12 3a9 9 0 0 1 0 18",
  leave: "M14 4h6v16h-6M10 8l-4 4 4 4M6 12h9",
};

/** One of the page's icons. */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", SHAPES[name]);
  svg.append(path);
  return svg;
}

/** A button with an icon; its label is read aloud, and shown where there is room (`wide`). */
export function button(name, label, action, { wide = false, kind = "" } = {}) {
  return h("button", { type: "button", class: `${wide ? "wide" : "round"} ${kind}`, title: label, "aria-label": label,
    onclick: action }, icon(name), wide ? h("span", {}, label) : null);
}

const NOTES = 4; // at most

/** A message that goes away by itself; an error stays until somebody has read it. */
export function note(message, kind = "") {
  const element = h("div", { class: `note ${kind}`, role: kind === "error" ? "alert" : null }, message);
  if (kind === "error") element.append(h("button", { type: "button", onclick: () => element.remove() }, "Close"));
  else setTimeout(() => element.remove(), 4000);
  const notes = document.querySelector(".notes");
  notes.append(element);
  while (notes.childElementCount > NOTES) notes.firstChild.remove();
}

/** Ask before something is lost; true when the user agrees. */
export function confirmed(question, verb) {
  return new Promise((resolve) => {
    const dialog = h("dialog", { class: "card" },
      h("p", {}, question),
      h("div", { class: "actions" },
        h("button", { type: "button", onclick: () => dialog.close("") }, "Cancel"),
        h("button", { type: "button", class: "danger", onclick: () => dialog.close("yes") }, verb)));
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
