// A container's log: searched, followed, with the colours that programs write.
//
// Lines are shown in portions, as often as the browser has time for, and what a program writes faster than that is left
// out. Whoever does not follow keeps the lines that are there.

import { ApiError, pieces } from "/static/parts/api.js";
import { h, note, put, text } from "/static/parts/dom.js";
import { Last, Lines, unix } from "/static/parts/loglines.js";

const KEPT = 5000; // lines
const CHARACTERS = 4e6;
const TAIL = 1000;
const PORTION = 1000; // lines that are shown at once
const AGAIN = 2000; // milliseconds, to a daemon that did not answer
const AT_ONCE = 8; // milliseconds of reading, before the browser may do something else
const IDLE = 3; // times as long as showing took, until lines are shown again

const pause = (time) => new Promise((done) => setTimeout(done, time));
const plural = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;

/** Show a container's log in `view`. */
export function showLogs(view, container) {
  const shown = new Last(KEPT, CHARACTERS);
  const waiting = new Last(KEPT, CHARACTERS);
  const search = h("input", { type: "search", placeholder: "Search the log …", "aria-label": "Search the log", oninput: render });
  const found = h("span", { class: "faint" });
  const missed = h("span", { class: "faint" });
  const following = h("input", { type: "checkbox", checked: true, onchange: show });
  const times = h("input", { type: "checkbox", onchange: () => {
    box.classList.toggle("times", times.checked);
    stay();
  } });
  const box = h("div", { class: "log", tabindex: "0", role: "log", "aria-label": "Log", onscroll: scrolled });
  put(view, h("div", { class: "card" }, h("div", { class: "bar" }, search, h("span", { class: "count" }, found, missed),
    h("label", {}, following, "Follow"), h("label", {}, times, "Times"),
    h("button", { type: "button", onclick: save }, "Save")), box));
  let since = "";
  let stop = new AbortController();
  let matches = 0;
  let never = 0; // lines that came too fast to be shown
  let timer = 0;
  let cost = 0;
  let place = 0;

  function stay() {
    if (following.checked) box.scrollTop = box.scrollHeight;
  }

  /** Who scrolls up does not follow any more, and does again at the end. */
  function scrolled() {
    const down = box.scrollTop > place;
    place = box.scrollTop;
    const atEnd = place + box.clientHeight >= box.scrollHeight - 40;
    if (!atEnd) following.checked = false;
    else if (down && !following.checked) {
      following.checked = true;
      show();
    }
    count();
  }

  function save() {
    const words = shown.lines.map((line) => `${line.time} ${line.plain}\n`);
    const url = URL.createObjectURL(new Blob(words, { type: "text/plain" }));
    h("a", { href: url, download: `${container.Name.replace(/^\//, "")}.log` }).click();
    URL.revokeObjectURL(url);
  }

  function marked(words, wanted) {
    const parts = [];
    const low = words.toLowerCase();
    let from = 0;
    for (let at = low.indexOf(wanted); at >= 0; at = low.indexOf(wanted, from)) {
      parts.push(words.slice(from, at), h("mark", {}, words.slice(at, at + wanted.length)));
      from = at + wanted.length;
    }
    return [...parts, words.slice(from)];
  }

  function element(line, wanted) {
    const words = wanted ? marked(line.plain, wanted)
      : line.coloured.map(([part, kind]) => (kind ? h("span", { class: kind }, part) : part));
    return h("div", { class: line.wrong ? "line wrong" : "line" }, h("time", {}, line.time.slice(0, 23).replace("T", " ")), ...words);
  }

  /** The elements of those lines that are searched for. */
  function elements(lines) {
    const wanted = search.value.toLowerCase();
    const all = document.createDocumentFragment();
    for (const line of lines) {
      line.element = !wanted || line.plain.toLowerCase().includes(wanted) ? element(line, wanted) : null;
      if (line.element) all.append(line.element);
    }
    matches += all.childElementCount;
    return all;
  }

  function count() {
    const lines = plural(shown.lines.length, "line");
    text(found, search.value ? `${matches} of ${lines}` : lines);
    const newer = waiting.lines.length;
    text(missed, (newer && !following.checked ? ` · ${newer} newer` : "") + (never ? ` · ${never} left out` : ""));
  }

  function render() {
    matches = 0;
    put(box, elements(shown.lines));
    count();
    stay();
  }

  /** Show a portion of what waits, as far as there is room without those that somebody is reading. */
  function show() {
    clearTimeout(timer);
    timer = 0;
    const begun = performance.now();
    const room = following.checked ? PORTION : KEPT - shown.lines.length;
    const batch = waiting.take(Math.max(0, Math.min(PORTION, room)));
    for (const { element: gone } of shown.add(batch)) {
      if (!gone) continue;
      gone.remove();
      matches -= 1;
    }
    box.append(elements(batch));
    count();
    stay();
    cost = performance.now() - begun;
    if (batch.length) soon();
  }

  function soon() {
    if (waiting.lines.length) timer ||= setTimeout(show, IDLE * cost);
  }

  function take(lines) {
    if (!lines.length) return;
    since = lines.at(-1).time;
    never += waiting.add(lines).length;
    soon();
  }

  async function read({ signal }) {
    const query = { follow: 1, stdout: 1, stderr: 1, timestamps: 1, ...(since ? { since: unix(since) } : { tail: TAIL }) };
    const lines = new Lines(container.Config.Tty, since); // some were read before the page was hidden
    let begun = performance.now();
    for await (const piece of pieces("GET", `/containers/${container.Id}/logs`, query, signal)) {
      take(lines.of(piece));
      if (performance.now() - begun < AT_ONCE) continue;
      await pause(0);
      begun = performance.now();
    }
    take(lines.end());
  }

  /** Read until the log ends, through the daemon's absences. */
  async function follow(mine) {
    while (!mine.signal.aborted) {
      try {
        await read(mine);
        return;
      } catch (error) {
        if (error.name === "AbortError") return;
        if (error.status !== 0) {
          note(error.message, "error");
          if (!(error instanceof ApiError)) throw error; // a fault of the page
          return;
        }
      }
      await pause(AGAIN);
    }
  }

  // Browsers have six connections for a server: what nobody sees holds none.
  function seen() {
    stop.abort();
    stop = new AbortController();
    if (!document.hidden) follow(stop);
  }
  const observer = new ResizeObserver(stay);
  observer.observe(box);
  document.addEventListener("visibilitychange", seen);
  follow(stop);
  return () => {
    observer.disconnect();
    document.removeEventListener("visibilitychange", seen);
    stop.abort();
    clearTimeout(timer);
  };
}
