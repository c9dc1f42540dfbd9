// Lines over time on a canvas, which redraws itself from readings; its colours are the style sheet's.

const SHOWN = 60; // readings from edge to edge
const SHOWN_IN_SPARK = 30;

function colour(canvas, name) {
  return getComputedStyle(canvas).getPropertyValue(name).trim();
}

/** A round number that is not below `value`, for the end of an axis. */
export function ceiling(value, least) {
  const wanted = Math.max(value, least);
  const power = 10 ** Math.floor(Math.log10(wanted));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= wanted * 0.999);
}

/**
 * Draw lines: each has a `name` of a reading's field and a `colour`, the name of a CSS variable.
 * `scale`: {least: the lowest end of the axis, format: its label, null for a spark without axis}.
 */
export function draw(canvas, readings, lines, scale) {
  const ratio = window.devicePixelRatio || 1;
  const shown = scale.format ? SHOWN : SHOWN_IN_SPARK;
  readings = readings.slice(-shown);
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  if (!width || !height) return;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  const highest = Math.max(0, ...readings.flatMap((reading) => lines.map((line) => reading[line.name])));
  const top = ceiling(highest, scale.least);
  const head = scale.format ? 18 : 2;
  const y = (value) => height - 1.5 - (value / top) * (height - head - 2);
  const x = (index) => width - ((readings.length - 1 - index) / (shown - 1)) * width;
  const marks = scale.format ? [0.5, 1].map((part) => top * part) : [];
  for (const mark of marks) rule(canvas, context, width, Math.round(y(mark)) + 0.5);
  for (const line of lines) {
    if (readings.length < 2) break;
    context.beginPath();
    readings.forEach((reading, index) => context.lineTo(x(index), y(reading[line.name])));
    context.strokeStyle = colour(canvas, line.colour);
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
  for (const mark of marks) label(canvas, context, scale.format(mark), Math.round(y(mark)) - 4);
}

function rule(canvas, context, width, height) {
  context.strokeStyle = colour(canvas, "--line");
  context.lineWidth = 1;
  context.beginPath();
  context.moveTo(0, height);
  context.lineTo(width, height);
  context.stroke();
}

/** A text beside which lines stay apart. */
function label(canvas, context, words, height) {
  context.font = "11px system-ui, sans-serif";
  context.strokeStyle = colour(canvas, "--card");
  context.lineWidth = 4;
  context.strokeText(words, 2, height);
  context.fillStyle = colour(canvas, "--faint");
  context.fillText(words, 2, height);
}
