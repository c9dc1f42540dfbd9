// A terminal in a container: a shell by exec, over a WebSocket.

import { post, socket } from "/static/parts/api.js";
import { h, put, text } from "/static/parts/dom.js";
import { keys } from "/static/terminal/keys.js";
import { Screen } from "/static/terminal/screen.js";

const SHELL = ["/bin/sh", "-c", "command -v bash >/dev/null && exec bash || exec sh"];
const EARLY = 4096; // characters that wait for the connection

/** Show a terminal in `view`. */
export function showTerminal(view, container) {
  if (!container.State.Running) {
    put(view, h("p", { class: "empty" }, "The container does not run."));
    return () => {};
  }
  const screen = new Screen(80, 24);
  const area = h("div", { class: "screen", tabindex: "0", role: "region", "aria-label": "Terminal" });
  // Keyboards of phones write into a field only.
  const field = h("textarea", { class: "typed", "aria-label": "Terminal input", autocapitalize: "off", autocomplete: "off",
    spellcheck: "false", rows: "1" });
  const state = h("span", { class: "faint" }, "Connecting …");
  const leave = h("span", { class: "faint", tabindex: "-1" }, "Ctrl+Shift+Enter leaves the terminal");
  const again = h("button", { type: "button", hidden: true, onclick: () => connect() }, "Open again");
  put(view, h("div", { class: "card terminal" }, h("div", { class: "bar" }, state, again, leave), area, field));
  let connection = null;
  let exec = "";
  let drawing = 0;
  let over = false;
  let early = ""; // what is typed before the connection is there
  let told = ""; // the size that the shell knows
  let telling = false;
  const encoder = new TextEncoder();

  const send = (words) => {
    if (connection?.readyState === WebSocket.OPEN) connection.send(encoder.encode(words));
    else if (again.hidden) early = (early + words).slice(0, EARLY);
  };
  screen.reply = send;

  function paint() {
    drawing = 0;
    const atEnd = area.scrollTop + area.clientHeight >= area.scrollHeight - 4;
    screen.paint(area);
    if (atEnd) area.scrollTop = area.scrollHeight;
  }

  function write(words) {
    screen.write(words);
    drawing ||= requestAnimationFrame(paint);
  }

  function fitting() {
    const probe = h("span", { class: "probe" }, "M".repeat(10));
    area.append(probe);
    const { width, height } = probe.getBoundingClientRect();
    probe.remove();
    const style = getComputedStyle(area);
    const room = area.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    const high = area.clientHeight - parseFloat(style.paddingTop) - parseFloat(style.paddingBottom);
    return [Math.max(20, Math.floor((room * 10) / width)), Math.max(5, Math.floor(high / height))];
  }

  function fit() {
    const [columns, rows] = fitting();
    if (columns === screen.columns && rows === screen.rows) return;
    screen.resize(columns, rows);
    write("");
    tell();
  }

  /** Have the shell know the screen's size: one request at a time, for the second of two may arrive first. */
  async function tell() {
    if (telling) return;
    telling = true;
    try {
      while (connection?.readyState === WebSocket.OPEN && told !== size()) {
        const now = size();
        await post(`/exec/${exec}/resize`, { h: screen.rows, w: screen.columns });
        told = now;
      }
    } catch {
      // it has just ended
    }
    telling = false;
  }

  const size = () => `${screen.columns} ${screen.rows}`;

  async function connect() {
    again.hidden = true;
    field.focus({ preventScroll: true });
    text(state, "Connecting …");
    screen.reset(...fitting());
    paint();
    try {
      const made = await post(`/containers/${container.Id}/exec`, {}, { AttachStdin: true, AttachStdout: true,
        AttachStderr: true, Tty: true, Cmd: SHELL, Env: ["TERM=xterm-256color"] });
      exec = made.Id;
    } catch (error) {
      ended(error.message);
      return;
    }
    if (over) return;
    const decoder = new TextDecoder();
    connection = socket(`/ketch/exec/${exec}/ws`, { h: screen.rows, w: screen.columns });
    told = size();
    connection.onopen = () => {
      text(state, "Connected");
      send(early);
      early = "";
      tell();
    };
    connection.onmessage = (message) => write(decoder.decode(message.data, { stream: true }));
    connection.onclose = ({ wasClean }) => ended(wasClean ? "The shell has ended." : "The connection was lost.");
  }

  function ended(why) {
    if (over) return;
    early = "";
    text(state, why);
    again.hidden = false;
  }

  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.ctrlKey && event.shiftKey) { // Tab is the shell's
      event.preventDefault();
      leave.focus();
      return;
    }
    const words = keys(event, screen);
    if (words === null) return;
    event.preventDefault();
    send(words);
  });
  field.addEventListener("input", () => {
    send(field.value.replace(/\n/g, "\r"));
    field.value = "";
  });
  field.addEventListener("paste", (event) => {
    event.preventDefault();
    const pasted = event.clipboardData.getData("text").replace(/\r?\n/g, "\r").replace(/\x1b/g, "");
    send(screen.bracketed ? `\x1b[200~${pasted}\x1b[201~` : pasted);
  });
  area.addEventListener("keydown", (event) => { // those that do not scroll are for the shell
    const typed = event.key.length === 1 && !event.metaKey;
    if (event.target === area && (typed || event.key === "Enter")) field.focus({ preventScroll: true });
  });
  area.addEventListener("mouseup", () => {
    if (getSelection().isCollapsed) field.focus({ preventScroll: true });
  });
  const observer = new ResizeObserver(() => fit());
  observer.observe(area);
  connect();
  return () => {
    over = true;
    observer.disconnect();
    connection?.close();
  };
}
