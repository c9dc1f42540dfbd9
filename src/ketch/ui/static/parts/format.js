// Values as people read them.

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];

/** Bytes with three digits: 1.23 MB. */
export function bytes(number) {
  let unit = 0;
  while (number >= 1000 && unit < UNITS.length - 1) {
    number /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? Math.round(number) : number.toPrecision(3).replace(/e\+.*/, "")} ${UNITS[unit]}`;
}

/** A processor's use: 3.1 %. */
export function percent(number) {
  return `${number < 10 ? number.toFixed(1) : Math.round(number)} %`;
}

/** How long ago a moment (a Date) was. */
export function ago(moment) {
  let seconds = Math.max(0, (Date.now() - moment) / 1000);
  for (const [size, name] of [[60, "second"], [60, "minute"], [24, "hour"], [30, "day"], [12, "month"], [Infinity, "year"]]) {
    if (seconds < size) {
      const whole = Math.floor(seconds);
      return `${whole} ${name}${whole === 1 ? "" : "s"} ago`;
    }
    seconds /= size;
  }
  return "";
}

/** The short form of an id. */
export function short(id) {
  return id.replace(/^sha256:/, "").slice(0, 12);
}

/** Published ports: 8080→80. */
export function ports(list) {
  const seen = new Set();
  for (const port of list) if (port.PublicPort) seen.add(`${port.PublicPort}→${port.PrivatePort}`);
  return [...seen].join(", ");
}
