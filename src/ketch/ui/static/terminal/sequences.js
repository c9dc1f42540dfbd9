// Control functions in what programs write, and which of a screen's methods each one is.

const CUBE = [0, 95, 135, 175, 215, 255];
const FLAGS = { 1: "bold", 2: "dim", 3: "italic", 4: "underline", 7: "inverse" };

/** A parser for one screen: sequences may be cut anywhere between two calls. */
export class Parser {
  constructor(screen) {
    this.screen = screen;
    this.take = this.ground;
    this.words = "";
  }

  parse(words) {
    for (const character of words) this.take(character, character.codePointAt(0));
  }

  ground(character, code) {
    if (code === 27) this.take = this.escape;
    else if (code < 32) this.screen.control(code);
    else if (code < 127 || code >= 160) this.screen.print(character);
  }

  escape(character) {
    this.words = "";
    this.take = this.ground;
    if (character === "[") this.take = this.sequence;
    else if ("]PX^_".includes(character)) this.take = this.text;
    else if ("()".includes(character)) {
      const which = character === "(" ? 0 : 1;
      this.take = (name) => {
        this.screen.charsets[which] = name;
        this.take = this.ground;
      };
    } else if (" #%*+-./".includes(character)) this.take = () => (this.take = this.ground);
    else ESCAPES[character]?.(this.screen);
  }

  /** Titles and the like, which nobody wants to see, to BEL or ST. */
  text(character, code) {
    if (code === 27) this.take = this.endOfText;
    else if (code === 7 || code === 24) this.take = this.ground;
  }

  endOfText(character, code) {
    this.take = this.ground;
    if (character !== "\\") this.escape(character, code);
  }

  sequence(character, code) {
    if (code === 27) this.take = this.escape;
    else if (code < 32) this.screen.control(code);
    else if (code < 64) {
      if (this.words.length < 200) this.words += character;
    } else {
      this.take = this.ground;
      this.run(character);
    }
  }

  run(last) {
    const [, mark, numbers, between] = /^([<=>?]?)([\d;:]*)([ -/]*)$/.exec(this.words) || [null, "bad", "", ""];
    const values = numbers.split(";").map((value) => (value === "" ? null : Math.min(9999, parseInt(value, 10))));
    if (mark === "?" && (last === "h" || last === "l")) for (const value of values) mode(this.screen, value, last === "h");
    else if (mark === ">" && last === "c") this.screen.reply("\x1b[>0;0;0c");
    else if (mark === "" && last === "m") style(this.screen, numbers);
    else if (mark === "" && between === "!" && last === "p") this.screen.reset();
    else if (mark === "" && between === "") SEQUENCES[last]?.(this.screen, values[0] || 1, values);
  }
}

const ESCAPES = {
  7: (screen) => screen.save(),
  8: (screen) => screen.restore(),
  D: (screen) => screen.index(),
  E: (screen) => {
    screen.x = 0;
    screen.index();
  },
  M: (screen) => screen.reverseIndex(),
  c: (screen) => screen.reset(),
};

function place(screen, y, x) {
  if (screen.origin) screen.move(x, Math.min(screen.bottom, screen.top + y));
  else screen.move(x, y);
}

// By the last character: the screen, the first number (1 where there is none or 0), all of them.
const SEQUENCES = {
  "@": (screen, count) => screen.insertCells(count),
  A: (screen, count) => screen.move(screen.x, Math.max(screen.y >= screen.top ? screen.top : 0, screen.y - count)),
  B: (screen, count) => screen.move(screen.x, Math.min(screen.y <= screen.bottom ? screen.bottom : screen.rows - 1, screen.y + count)),
  C: (screen, count) => screen.move(screen.x + count, screen.y),
  D: (screen, count) => screen.move(screen.x - count, screen.y),
  E: (screen, count) => screen.move(0, screen.y + count),
  F: (screen, count) => screen.move(0, screen.y - count),
  G: (screen, column) => screen.move(column - 1, screen.y),
  H: (screen, row, [, column]) => place(screen, row - 1, (column || 1) - 1),
  I: (screen, count) => {
    for (let left = Math.min(count, screen.columns); left > 0; left -= 1) screen.control(9);
  },
  J: (screen, _, [how]) => screen.eraseScreen(how || 0),
  K: (screen, _, [how]) => screen.eraseLine(how || 0),
  L: (screen, count) => screen.insertLines(count),
  M: (screen, count) => screen.deleteLines(count),
  P: (screen, count) => screen.deleteCells(count),
  S: (screen, count) => screen.scroll(count),
  T: (screen, count) => screen.scroll(-count),
  X: (screen, count) => screen.erase(screen.y, screen.x, screen.x + count),
  Z: (screen, count) => screen.move((Math.ceil(screen.x / 8) - count) * 8, screen.y),
  a: (screen, count) => screen.move(screen.x + count, screen.y),
  b: (screen, count) => {
    for (let left = Math.min(count, screen.columns * screen.rows); left > 0; left -= 1) screen.print(screen.last);
  },
  c: (screen) => screen.reply("\x1b[?1;2c"),
  d: (screen, row) => place(screen, row - 1, screen.x),
  e: (screen, count) => screen.move(screen.x, screen.y + count),
  h: (screen, what) => {
    if (what === 4) screen.insert = true;
  },
  l: (screen, what) => {
    if (what === 4) screen.insert = false;
  },
  n: (screen, what) => {
    if (what === 5) screen.reply("\x1b[0n");
    if (what === 6) screen.reply(`\x1b[${screen.y + 1 - (screen.origin ? screen.top : 0)};${screen.x + 1}R`);
  },
  r: (screen, top, [, last]) => {
    const bottom = Math.min(screen.rows, last || screen.rows);
    if (top >= bottom) return;
    Object.assign(screen, { top: top - 1, bottom: bottom - 1 });
    place(screen, 0, 0);
  },
  s: (screen) => screen.save(),
  u: (screen) => screen.restore(),
};
SEQUENCES.f = SEQUENCES.H;
SEQUENCES["`"] = SEQUENCES.G;

function mode(screen, which, on) {
  if (which === 1) screen.applicationKeys = on;
  else if (which === 6) {
    screen.origin = on;
    place(screen, 0, 0);
  } else if (which === 7) screen.wrap = on;
  else if (which === 25) screen.shown = on;
  else if (which === 47 || which === 1047) screen.alternate(on);
  else if (which === 1048) screen[on ? "save" : "restore"]();
  else if (which === 1049) {
    if (on) screen.save();
    screen.alternate(on);
    if (!on) screen.restore();
  } else if (which === 2004) screen.bracketed = on;
}

function style(screen, numbers) {
  const values = numbers.split(/[;:]/).map((value) => Number(value || 0));
  let now = { ...screen.style };
  while (values.length) {
    const code = values.shift();
    if (code === 0) now = { fg: null, bg: null };
    else if (code in FLAGS) now[FLAGS[code]] = true;
    else if (code === 22) now.bold = now.dim = false;
    else if (code > 22 && code < 28 && FLAGS[code - 20]) now[FLAGS[code - 20]] = false;
    else if (code >= 30 && code <= 37) now.fg = code - 30;
    else if (code >= 40 && code <= 47) now.bg = code - 40;
    else if (code >= 90 && code <= 97) now.fg = code - 82;
    else if (code >= 100 && code <= 107) now.bg = code - 92;
    else if (code === 39) now.fg = null;
    else if (code === 49) now.bg = null;
    else if (code === 38 || code === 48) now[code === 38 ? "fg" : "bg"] = colour(values);
  }
  const plain = Object.values(now).every((value) => value === null || value === false);
  screen.style = plain ? screen.plain : Object.freeze(now);
}

/** One of 256 colours, or red, green and blue; takes its numbers off the list. */
function colour(values) {
  const kind = values.shift();
  const byte = () => Math.min(255, values.shift() || 0);
  if (kind === 2) return `rgb(${byte()}, ${byte()}, ${byte()})`;
  if (kind !== 5) return null;
  const number = byte();
  if (number < 16) return number;
  if (number >= 232) return `rgb(${Array(3).fill((number - 232) * 10 + 8).join(", ")})`;
  const at = number - 16;
  return `rgb(${CUBE[Math.floor(at / 36)]}, ${CUBE[Math.floor(at / 6) % 6]}, ${CUBE[at % 6]})`;
}
