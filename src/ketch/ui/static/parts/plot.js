// Lines over time on a canvas, drawn from readings while it is in sight; its colours are the style sheet's.

const SHOWN = 60; // readings from edge to edge
const SHOWN_IN_SPARK = 30;

// The browser tells sizes: to ask for them would lay out the page for each of many plots.
const plots = new WeakMap(); // canvas → plot
const told = ({ target, isIntersecting, boundingClientRect, contentRect }) => {
  const { width, height } = boundingClientRect || contentRect;
  const plot = plots.get(target);
  plot.isSeen = isIntersecting ?? plot.isSeen;
  Object.assign(plot, { width, height });
  plot.draw();
};
const sight = new IntersectionObserver((entries) => entries.forEach(told));
const sizes = new ResizeObserver((entries) => entries.forEach(told));

let colours = null; // of the style sheet, for one turn

function colour(name) {
  if (colours === null) {
    colours = new Map();
    queueMicrotask(() => (colours = null));
  }
  if (!colours.has(name)) colours.set(name, getComputedStyle(document.documentElement).getPropertyValue(name).trim());
  return colours.get(name);
}

/** A round number that is not below `value`, for the end of an axis. */
function ceiling(value, least) {
  const wanted = Math.max(value, least);
  const power = 10 ** Math.floor(Math.log10(wanted));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= wanted * 0.999);
}

/**
 * The plot on a canvas. Each of `lines` has a `name` of a reading's field and a `colour`, the name of a CSS variable.
 * `scale`: {least: the lowest end of the axis, format: its label, null for a spark without axis}.
 */
export class Plot {
  constructor(canvas, lines, scale) {
    Object.assign(this, { canvas, lines, scale, readings: [], isSeen: false, width: 0, height: 0 });
    plots.set(canvas, this);
    sight.observe(canvas);
    sizes.observe(canvas);
  }

  /** Draw these readings, the oldest first. */
  show(readings) {
    this.readings = readings.slice(this.scale.format ? -SHOWN : -SHOWN_IN_SPARK);
    this.draw();
  }

  draw() {
    const { canvas, lines, readings, scale, width, height } = this;
    if (!this.isSeen || !width || !height) return;
    const ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    canvas.dataset.readings = readings.length;
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const highest = Math.max(0, ...readings.flatMap((reading) => lines.map((line) => reading[line.name])));
    const top = ceiling(highest, scale.least);
    const head = scale.format ? 18 : 2;
    const y = (value) => height - 1.5 - (value / top) * (height - head - 2);
    const x = (index) => width - ((readings.length - 1 - index) / ((scale.format ? SHOWN : SHOWN_IN_SPARK) - 1)) * width;
    const marks = scale.format ? [0.5, 1].map((part) => top * part) : [];
    for (const mark of marks) rule(context, width, Math.round(y(mark)) + 0.5);
    for (const line of lines) {
      if (readings.length < 2) break;
      context.beginPath();
      readings.forEach((reading, index) => context.lineTo(x(index), y(reading[line.name])));
      context.strokeStyle = colour(line.colour);
      context.lineWidth = 1.75;
      context.lineJoin = "round";
      context.stroke();
      context.lineTo(width, height);
      context.lineTo(x(0), height);
      context.globalAlpha = 0.14;
      context.fillStyle = context.strokeStyle;
      context.fill();
      context.globalAlpha = 1;
    }
    for (const mark of marks) label(context, scale.format(mark), Math.round(y(mark)) - 4);
  }
}

function rule(context, width, height) {
  context.strokeStyle = colour("--line");
  context.lineWidth = 1;
  context.beginPath();
  context.moveTo(0, height);
  context.lineTo(width, height);
  context.stroke();
}

/** A text beside which lines stay apart. */
function label(context, words, height) {
  context.font = "11px system-ui, sans-serif";
  context.strokeStyle = colour("--card");
  context.lineWidth = 4;
  context.strokeText(words, 2, height);
  context.fillStyle = colour("--faint");
  context.fillText(words, 2, height);
}
