// A container's log: searched, followed, with the colours that programs write.

import { pieces } from "/static/parts/api.js";
import { h, note, put, text } from "/static/parts/dom.js";

const KEPT = 5000; // lines
const TAIL = 1000;
const ESCAPE = /\x1b\[([0-9;:]*)([@-~])|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]?|[\x00-\x08\x0b-\x1f\x7f-\x9f]/g;

/** The frames of a stream without a terminal: [stream, bytes]; one that is not whole yet waits for the rest. */
class Frames {
  constructor() {
    this.rest = new Uint8Array(0);
  }

  *of(piece) {
    let data = new Uint8Array(this.rest.length + piece.length);
    data.set(this.rest);
    data.set(piece, this.rest.length);
    while (data.length >= 8) {
      const size = new DataView(data.buffer, data.byteOffset).getUint32(4);
      if (data.length < 8 + size) break;
      yield [data[0], data.subarray(8, 8 + size)];
      data = data.subarray(8 + size);
    }
    this.rest = data.slice();
  }
}

/** A line's parts, [text, class]: escape sequences become colours or nothing. */
export function coloured(line) {
  const parts = [];
  let shade = "";
  let bold = "";
  let from = 0;
  const add = (end) => {
    if (end > from) parts.push([line.slice(from, end), `${shade} ${bold}`.trim()]);
  };
  for (const match of line.matchAll(ESCAPE)) {
    add(match.index);
    from = match.index + match[0].length;
    if (match[2] !== "m") continue;
    for (const code of match[1].split(/[;:]/).map(Number)) {
      if (code === 0) shade = bold = "";
      else if (code === 1) bold = "bold";
      else if (code === 22) bold = "";
      else if (code === 39) shade = "";
      else if (code >= 30 && code <= 37) shade = `c${code - 30}`;
      else if (code >= 90 && code <= 97) shade = `c${code - 82}`;
      else if (code === 38 || code === 48) break; // more colours than a log needs
    }
  }
  add(line.length);
  return parts;
}

/** A line's time as the API takes it: seconds, with nine digits behind the point. */
function unix(time) {
  const [whole, fraction = ""] = time.replace("Z", "").split(".");
  return `${Date.parse(`${whole}Z`) / 1000}.${fraction.padEnd(9, "0")}`;
}

/** Show a container's log in `view`. */
export function showLogs(view, container) {
  const lines = []; // {time, words, plain, wrong, element: what shows it}
  const search = h("input", { type: "search", placeholder: "Search the log …", "aria-label": "Search the log", oninput: render });
  const found = h("span", { class: "faint count" });
  const following = h("input", { type: "checkbox", checked: true, onchange: () => following.checked && bottom() });
  const times = h("input", { type: "checkbox", onchange: () => box.classList.toggle("times", times.checked) });
  const box = h("div", { class: "log", tabindex: "0", role: "log", "aria-label": "Log", onscroll: () => {
    if (box.scrollTop + box.clientHeight < box.scrollHeight - 40) following.checked = false;
  } });
  put(view, h("div", { class: "card" }, h("div", { class: "bar" }, search, found,
    h("label", {}, following, "Follow"), h("label", {}, times, "Times"),
    h("button", { type: "button", onclick: save }, "Save")), box));
  let since = "";
  let stop = new AbortController();
  let matches = 0;

  function bottom() {
    box.scrollTop = box.scrollHeight;
  }

  function save() {
    const url = URL.createObjectURL(new Blob(lines.map((line) => `${line.time} ${line.plain}\n`), { type: "text/plain" }));
    h("a", { href: url, download: `${container.Name.replace(/^\//, "")}.log` }).click();
    URL.revokeObjectURL(url);
  }

  function marked(words, wanted) {
    const parts = [];
    let from = 0;
    for (let at = words.toLowerCase().indexOf(wanted); at >= 0; at = words.toLowerCase().indexOf(wanted, from)) {
      parts.push(words.slice(from, at), h("mark", {}, words.slice(at, at + wanted.length)));
      from = at + wanted.length;
    }
    return [...parts, words.slice(from)];
  }

  function element(line, wanted) {
    const words = wanted ? marked(line.plain, wanted)
      : coloured(line.words).map(([part, kind]) => (kind ? h("span", { class: kind }, part) : part));
    return h("div", { class: line.wrong ? "line wrong" : "line" }, h("time", {}, line.time.slice(0, 23).replace("T", " ")), ...words);
  }

  function show(line, into) {
    const wanted = search.value.toLowerCase();
    line.element = null;
    if (wanted && !line.plain.toLowerCase().includes(wanted)) return;
    matches += 1;
    line.element = element(line, wanted);
    into.append(line.element);
  }

  function count() {
    text(found, search.value ? `${matches} of ${lines.length} lines` : `${lines.length} lines`);
  }

  function render() {
    matches = 0;
    const all = document.createDocumentFragment();
    for (const line of lines) show(line, all);
    put(box, all);
    count();
    if (following.checked) bottom();
  }

  function add(batch) {
    const all = document.createDocumentFragment();
    for (const line of batch) {
      lines.push(line);
      show(line, all);
    }
    box.append(all);
    for (const gone of lines.splice(0, Math.max(0, lines.length - KEPT))) {
      if (gone.element) matches -= 1;
      gone.element?.remove();
    }
    count();
    if (following.checked) bottom();
  }

  async function read() {
    const decoders = new Map();
    const begun = new Map();
    const frames = new Frames();
    const query = { follow: 1, stdout: 1, stderr: 1, timestamps: 1, ...(since ? { since: unix(since) } : { tail: TAIL }) };
    const known = since;
    const parsed = (stream, part) => {
      const space = part.indexOf(" ");
      const words = part.slice(space + 1).replace(/\r$/, "");
      const time = part.slice(0, space);
      if (known && unix(time) <= unix(known)) return []; // it was read before the page was hidden
      since = time;
      return [{ time, words, plain: words.replace(ESCAPE, ""), wrong: stream === 2 }];
    };
    for await (const piece of pieces("GET", `/containers/${container.Id}/logs`, query, stop.signal)) {
      const batch = [];
      for (const [stream, data] of container.Config.Tty ? [[1, piece]] : frames.of(piece)) {
        if (!decoders.has(stream)) decoders.set(stream, new TextDecoder());
        const parts = ((begun.get(stream) || "") + decoders.get(stream).decode(data, { stream: true })).split("\n");
        begun.set(stream, parts.pop());
        batch.push(...parts.flatMap((part) => parsed(stream, part)));
      }
      if (batch.length) add(batch);
    }
    // A program's last words often have no end of line.
    add([...begun].filter(([, part]) => part).flatMap(([stream, part]) => parsed(stream, part)));
  }

  async function follow() {
    try {
      await read();
    } catch (error) {
      if (error.name !== "AbortError") note(error.message, "error");
    }
  }

  // Browsers have six connections for a server: what nobody sees holds none.
  function seen() {
    stop.abort();
    stop = new AbortController();
    if (!document.hidden) follow();
  }
  document.addEventListener("visibilitychange", seen);
  follow();
  return () => {
    document.removeEventListener("visibilitychange", seen);
    stop.abort();
  };
}
