// The lines of a log: from the stream of its bytes, and the last of them, which are kept.

const LONGEST = 16384; // characters of a line; the rest is cut off
const ESCAPE = /\x1b\[([0-9;:]*)([@-~])|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]?|[\x00-\x08\x0b-\x1f\x7f-\x9f]/g;

/** A line as it was written. */
class Line {
  constructor(time, words, wrong) {
    Object.assign(this, { time, words, wrong, element: null }); // `element` is what shows it
  }

  /** The words alone, without escape sequences. */
  get plain() {
    this.bare ??= this.words.replace(ESCAPE, "");
    return this.bare;
  }

  /** The words' parts, [text, class]: escape sequences become colours or nothing. */
  get coloured() {
    const line = this.words;
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
}

/** A line's time as the API takes it: seconds, with nine digits behind the point. */
export function unix(time) {
  const [whole, fraction = ""] = time.replace("Z", "").split(".");
  return `${Date.parse(`${whole}Z`) / 1000}.${fraction.padEnd(9, "0")}`;
}

/** What makes lines of the pieces of a stream with times; `tty`: without the frames that tell two streams apart. */
export class Lines {
  constructor(tty, known) {
    this.tty = tty;
    this.known = known && unix(known); // lines up to then are left out
    this.rest = new Uint8Array(0); // a frame that is not whole yet
    this.streams = new Map();
  }

  /** The lines that end in a piece. */
  of(piece) {
    const found = [];
    for (const [stream, data] of this.tty ? [[1, piece]] : this.runs(piece)) {
      if (!this.streams.has(stream)) this.streams.set(stream, { decoder: new TextDecoder(), begun: "" });
      const one = this.streams.get(stream);
      const parts = (one.begun + one.decoder.decode(data, { stream: true })).split("\n");
      one.begun = parts.pop().slice(0, 2 * LONGEST);
      for (const part of parts) this.add(found, stream, part);
    }
    return found;
  }

  /** A program's last words, which often have no end of line. */
  end() {
    const found = [];
    for (const [stream, { begun }] of this.streams) if (begun) this.add(found, stream, begun);
    return found;
  }

  /** [stream, bytes] of frames, those of one stream that follow each other as one. */
  *runs(piece) {
    let data = piece;
    if (this.rest.length) {
      data = new Uint8Array(this.rest.length + piece.length);
      data.set(this.rest);
      data.set(piece, this.rest.length);
    }
    const view = new DataView(data.buffer, data.byteOffset, data.length);
    let at = 0;
    let from = 0;
    let to = 0;
    let stream = 1;
    while (at + 8 <= data.length) {
      const end = at + 8 + view.getUint32(at + 4);
      if (end > data.length) break;
      if (data[at] !== stream) {
        if (to > from) yield [stream, data.subarray(from, to)];
        stream = data[at];
        from = to = at;
      }
      data.copyWithin(to, at + 8, end);
      to += end - at - 8;
      at = end;
    }
    if (to > from) yield [stream, data.subarray(from, to)];
    this.rest = data.slice(at);
  }

  add(found, stream, part) {
    const space = part.indexOf(" ");
    const time = part.slice(0, space);
    if (this.known) {
      if (unix(time) <= this.known) return;
      this.known = "";
    }
    const words = part.slice(space + 1).replace(/\r$/, "");
    found.push(new Line(time, words.length > LONGEST ? `${words.slice(0, LONGEST)} …` : words, stream === 2));
  }
}

/** The last of many lines: at most so many, with at most so many characters. */
export class Last {
  constructor(most, characters) {
    Object.assign(this, { most, characters, lines: [], size: 0 });
  }

  /** Add lines; returns those that had to go, the oldest. */
  add(lines) {
    for (const line of lines) {
      this.lines.push(line);
      this.size += line.words.length;
    }
    let gone = 0;
    while (this.lines.length - gone > this.most || (this.size > this.characters && gone < this.lines.length - 1)) {
      this.size -= this.lines[gone].words.length;
      gone += 1;
    }
    return gone ? this.lines.splice(0, gone) : [];
  }

  /** Take all of them, or the first so many. */
  take(count = this.lines.length) {
    const taken = this.lines.splice(0, count);
    for (const line of taken) this.size -= line.words.length;
    return taken;
  }
}
