// A terminal's screen: what programs write (ECMA-48, with xterm's additions) as rows of cells, and those as elements.

import { Parser } from "/static/terminal/sequences.js";

const SCROLLED = 1000; // lines that have left the top
const WIDE = /[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{1f300}-\u{1f64f}\u{1f680}-\u{1f6ff}\u{1f900}-\u{1f9ff}\u{20000}-\u{3fffd}]/u;
const JOINED = /[\p{Mn}\p{Me}\u200b-\u200f\ufe00-\ufe0f]/u;
const LINES = { j: "┘", k: "┐", l: "┌", m: "└", n: "┼", q: "─", t: "├", u: "┤", v: "┴", w: "┬", x: "│", a: "▒", "`": "◆", "~": "·",
  f: "°", g: "±", o: "⎺", p: "⎻", r: "⎼", s: "⎽", y: "≤", z: "≥" };
const LONGEST = 16; // of a cell's text: a character, and what is written upon it
const PLAIN = Object.freeze({ fg: null, bg: null });

/** Cells, a cursor, and how characters and control functions change them. */
export class Screen {
  constructor(columns, rows) {
    this.reply = () => {};
    this.parser = new Parser(this);
    this.reset(columns, rows);
  }

  reset(columns = this.columns, rows = this.rows) {
    Object.assign(this, { columns, rows, style: PLAIN, x: 0, y: 0, top: 0, bottom: rows - 1, wrap: true, pending: false,
      origin: false, insert: false, shown: true, applicationKeys: false, bracketed: false, saved: null, other: null,
      charsets: ["B", "B"], charset: 0, last: " ", scrolled: [], forgotten: true, plain: PLAIN });
    this.lines = Array.from({ length: rows }, () => this.line());
  }

  write(words) {
    this.parser.parse(words);
  }

  line() {
    return { cells: Array.from({ length: this.columns }, () => this.blank()), dirty: true, element: null };
  }

  blank() { // an erased cell keeps the background
    return { text: " ", style: this.style.bg === null ? PLAIN : { fg: null, bg: this.style.bg } };
  }

  resize(columns, rows) {
    const change = (lines) => {
      for (const line of lines) {
        while (line.cells.length < columns) line.cells.push({ text: " ", style: PLAIN });
        line.cells.length = columns;
        line.dirty = true;
      }
    };
    this.columns = columns;
    change(this.lines);
    if (this.other) change(this.other.lines);
    while (this.lines.length > rows) {
      if (this.y < this.lines.length - 1) this.lines.pop();
      else {
        this.keep(this.lines.shift());
        this.y -= 1;
      }
    }
    while (this.lines.length < rows) this.lines.push(this.line());
    if (this.other) {
      this.other.lines.length = Math.min(this.other.lines.length, rows);
      while (this.other.lines.length < rows) this.other.lines.push(this.line());
    }
    Object.assign(this, { rows, top: 0, bottom: rows - 1, x: Math.min(this.x, columns - 1), pending: false, forgotten: true });
  }

  // -- characters

  print(character) {
    if (this.charsets[this.charset] === "0") character = LINES[character] || character;
    if (JOINED.test(character)) {
      const before = this.lines[this.y].cells[Math.max(0, this.x - (this.pending ? 0 : 1))];
      if (before.text.length < LONGEST) before.text += character;
      this.lines[this.y].dirty = true;
      return;
    }
    const width = WIDE.test(character) ? 2 : 1;
    if (this.pending || this.x + width > this.columns) {
      if (this.wrap) {
        this.x = 0;
        this.index();
      } else this.x = this.columns - width;
      this.pending = false;
    }
    const line = this.lines[this.y];
    if (this.insert) {
      for (let count = 0; count < width; count += 1) line.cells.splice(this.x, 0, this.blank());
      line.cells.length = this.columns;
    }
    line.cells[this.x] = { text: character, style: this.style };
    if (width === 2) line.cells[this.x + 1] = { text: "", style: this.style };
    line.dirty = true;
    this.last = character;
    this.x += width;
    if (this.x >= this.columns) {
      this.x = this.columns - 1;
      this.pending = true;
    }
  }

  control(code) {
    if (code === 8) this.move(this.x - 1, this.y);
    else if (code === 9) this.move(Math.min(this.columns - 1, (Math.floor(this.x / 8) + 1) * 8), this.y);
    else if (code >= 10 && code <= 12) this.index();
    else if (code === 13) this.move(0, this.y);
    else if (code === 14 || code === 15) this.charset = code === 14 ? 1 : 0;
  }

  move(x, y) {
    this.pending = false;
    this.x = Math.max(0, Math.min(this.columns - 1, x));
    this.y = Math.max(0, Math.min(this.rows - 1, y));
  }

  // -- lines

  index() {
    this.pending = false;
    if (this.y === this.bottom) this.scroll(1);
    else if (this.y < this.rows - 1) this.y += 1;
  }

  reverseIndex() {
    this.pending = false;
    if (this.y === this.top) this.scroll(-1);
    else if (this.y > 0) this.y -= 1;
  }

  /** Move the region's lines up (a negative count: down). */
  scroll(count, top = this.top, bottom = this.bottom) {
    for (let left = Math.min(Math.abs(count), bottom - top + 1); left > 0; left -= 1) {
      if (count > 0) {
        const [gone] = this.lines.splice(top, 1);
        if (top === 0 && !this.other) this.keep(gone);
        this.lines.splice(bottom, 0, this.line());
      } else {
        this.lines.splice(bottom, 1);
        this.lines.splice(top, 0, this.line());
      }
    }
    this.forgotten = true;
  }

  keep(line) {
    this.scrolled.push(line);
    if (this.scrolled.length > SCROLLED) this.scrolled.shift();
  }

  insertLines(count) {
    if (this.y >= this.top && this.y <= this.bottom) this.scrollHere(-count);
  }

  deleteLines(count) {
    if (this.y >= this.top && this.y <= this.bottom) this.scrollHere(count);
  }

  scrollHere(count) {
    const other = this.other;
    this.other ??= {}; // lines that are deleted have not left the top
    this.scroll(count, this.y, this.bottom);
    this.other = other;
    this.move(0, this.y);
  }

  insertCells(count) {
    const { cells } = this.touched();
    for (let left = Math.min(count, this.columns - this.x); left > 0; left -= 1) cells.splice(this.x, 0, this.blank());
    cells.length = this.columns;
  }

  deleteCells(count) {
    const { cells } = this.touched();
    cells.splice(this.x, count);
    while (cells.length < this.columns) cells.push(this.blank());
  }

  touched() {
    const line = this.lines[this.y];
    line.dirty = true;
    this.pending = false;
    return line;
  }

  erase(y, from, to) {
    const line = this.lines[y];
    for (let x = from; x < Math.min(to, this.columns); x += 1) line.cells[x] = this.blank();
    line.dirty = true;
  }

  eraseLine(mode) {
    this.erase(this.y, mode === 0 ? this.x : 0, mode === 1 ? this.x + 1 : this.columns);
  }

  eraseScreen(mode) {
    if (mode === 3) {
      this.scrolled = [];
      this.forgotten = true;
      return;
    }
    if (mode < 2) this.eraseLine(mode);
    const [from, to] = [[this.y + 1, this.rows], [0, this.y], [0, this.rows]][mode] || [0, 0];
    for (let y = from; y < to; y += 1) this.erase(y, 0, this.columns);
  }

  // -- state

  save() {
    this.saved = { x: this.x, y: this.y, style: this.style, origin: this.origin, charsets: [...this.charsets], charset: this.charset };
  }

  restore() {
    if (this.saved) Object.assign(this, this.saved, { charsets: [...this.saved.charsets], pending: false });
    this.move(this.x, this.y);
  }

  /** The screen of full-screen programs, beside which the shell's stays. */
  alternate(on) {
    if (on === Boolean(this.other)) return;
    if (on) {
      this.other = { lines: this.lines };
      this.lines = Array.from({ length: this.rows }, () => this.line());
    } else {
      this.lines = this.other.lines;
      this.other = null;
    }
    for (const line of this.lines) line.dirty = true;
    Object.assign(this, { top: 0, bottom: this.rows - 1, forgotten: true });
  }

  // -- elements

  /** Bring `area` up to date. */
  paint(area) {
    const all = this.other ? this.lines : [...this.scrolled, ...this.lines];
    const cursor = this.shown ? this.lines[this.y] : null;
    if (this.cursorLine) this.cursorLine.dirty = true;
    if (cursor) cursor.dirty = true;
    this.cursorLine = cursor;
    for (const line of all) {
      if (!line.dirty && line.element) continue;
      line.element ??= Object.assign(document.createElement("div"), { className: "row" });
      line.element.replaceChildren(...runs(line.cells, line === cursor ? this.x : -1));
      line.dirty = false;
    }
    if (this.forgotten || area.childElementCount !== all.length) area.replaceChildren(...all.map((line) => line.element));
    this.forgotten = false;
  }
}

/** A row's cells as few elements: one for each stretch of one style. */
function runs(cells, cursor) {
  const made = [];
  let from = 0;
  for (let x = 1; x <= cells.length; x += 1) {
    if (x < cells.length && cells[x].style === cells[from].style && x !== cursor && from !== cursor) continue;
    made.push(run(cells.slice(from, x).map((cell) => cell.text).join(""), cells[from].style, from === cursor));
    from = x;
  }
  return made;
}

function run(words, style, isCursor) {
  if (style === PLAIN && !isCursor) return document.createTextNode(words);
  const element = document.createElement("span");
  element.textContent = words;
  element.className = ["bold", "dim", "italic", "underline", "inverse"].filter((name) => style[name]).join(" ");
  if (isCursor) element.classList.add("cursor");
  for (const [kind, name] of [["fg", "c"], ["bg", "b"]]) {
    const colour = style[kind];
    if (typeof colour === "number") element.classList.add(`${name}${colour}`);
    else if (colour) element.style[kind === "fg" ? "color" : "backgroundColor"] = colour;
  }
  return element;
}
