// Keys as the bytes that a terminal sends for them (xterm's).

const CURSOR = { ArrowUp: "A", ArrowDown: "B", ArrowRight: "C", ArrowLeft: "D", Home: "H", End: "F" };
const NUMBERED = { Insert: 2, Delete: 3, PageUp: 5, PageDown: 6, F5: 15, F6: 17, F7: 18, F8: 19, F9: 20, F10: 21, F11: 23, F12: 24 };
const FUNCTION = { F1: "P", F2: "Q", F3: "R", F4: "S" };
const PLAIN = { Enter: "\r", Backspace: "\x7f", Tab: "\t", Escape: "\x1b" };

/** What a key sends; null when it is the browser's, or an ordinary letter, which arrives as input. */
export function keys(event, { applicationKeys }) {
  const { key, ctrlKey, altKey, shiftKey, metaKey } = event;
  if (metaKey || event.isComposing) return null;
  const modifier = 1 + (shiftKey ? 1 : 0) + (altKey ? 2 : 0) + (ctrlKey ? 4 : 0);
  if (key in CURSOR) {
    if (modifier > 1) return `\x1b[1;${modifier}${CURSOR[key]}`;
    return (applicationKeys ? "\x1bO" : "\x1b[") + CURSOR[key];
  }
  if (key in NUMBERED) return `\x1b[${NUMBERED[key]}${modifier > 1 ? `;${modifier}` : ""}~`;
  if (key in FUNCTION) return modifier > 1 ? `\x1b[1;${modifier}${FUNCTION[key]}` : `\x1bO${FUNCTION[key]}`;
  if (key === "Tab" && shiftKey) return "\x1b[Z";
  if (key in PLAIN) return (altKey ? "\x1b" : "") + PLAIN[key];
  if (ctrlKey && shiftKey) return null; // copy and paste
  if (ctrlKey && key.length === 1) return control(key, altKey);
  if (altKey && key.length === 1) return `\x1b${key}`;
  return null;
}

function control(key, altKey) {
  const code = key === " " ? 64 : key.toUpperCase().charCodeAt(0);
  if (code < 64 || code > 95) return null;
  return (altKey ? "\x1b" : "") + String.fromCharCode(code - 64);
}
