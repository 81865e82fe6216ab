// Samples, planes and curves on canvases.

// Of classes: those of Okabe and Ito, which people with any kind of colour vision tell apart, and four more.
export const COLOURS = [
  "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9",
  "#d55e00", "#8c00f0", "#783c14", "#b4b464", "#3c5050",
];

// The colour of a class, lighter on a dark page.
export function colourOf(k) {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches, colour = COLOURS[k % COLOURS.length];
  return dark ? `color-mix(in srgb, ${colour}, white 30%)` : colour;
}

export function variable(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// A context in units of CSS pixels, cleared.
export function prepare(canvas, width = canvas.clientWidth, height = canvas.clientHeight) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  return { context, width, height };
}

// One sample; an image pixel by pixel, so that a canvas holds just what the model made.
export function paint(canvas, samples, i = 0, ramp = grey) {
  canvas.className = `sample ${samples.kind}`;
  if (samples.kind === "image") paintImage(canvas, samples, i, ramp);
  else if (samples.kind === "cloud") paintCloud(canvas, samples.each(i), { yaw: -0.6, pitch: 0.35 }, 180);
  else paintVector(canvas, samples.each(i));
  return canvas;
}

const grey = (v) => [v, v, v];
const STOPS = [[14, 14, 24], [86, 30, 92], [186, 56, 80], [245, 140, 70], [252, 230, 160]];

// Errors: from dark to bright, stretched where they are small.
export function heat(v) {
  const t = Math.min(1, Math.sqrt(v / 255)) * (STOPS.length - 1);
  const k = Math.min(STOPS.length - 2, Math.floor(t));
  return STOPS[k].map((low, c) => low + (t - k) * (STOPS[k + 1][c] - low));
}

function paintImage(canvas, samples, i, ramp) {
  const [, channels, height, width] = samples.shape;
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const picture = context.createImageData(width, height);
  const values = samples.each(i), size = width * height;
  for (let p = 0; p < size; p++) {
    const rgb = channels === 3
      ? [values[p], values[size + p], values[2 * size + p]]
      : ramp(values[p]);
    picture.data.set([...rgb, 255], 4 * p);
  }
  context.putImageData(picture, 0, 0);
}

// Where the points (N, 3) of a cloud in the unit sphere fall after a turn about the upright axis
// and of the camera: x and y from 0 to 1, and the depth, larger nearer.
export function project(points, { yaw, pitch }) {
  const [c, s, d, t] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
  const seen = [];
  for (let i = 0; i < points.length; i += 3) {
    const [x, y, z] = points.subarray(i, i + 3);
    const across = c * x + s * z, away = -s * x + c * z;
    seen.push([0.5 + 0.47 * across, 0.5 - 0.47 * (d * y - t * away), t * y + d * away]);
  }
  return seen;
}

export function paintCloud(canvas, points, turn, side = canvas.clientWidth) {
  const { context } = prepare(canvas, side, side);
  const seen = project(points, turn).sort((a, b) => a[2] - b[2]);
  const radius = Math.max(1.2, side * Math.min(0.012, 0.25 / Math.sqrt(seen.length)));
  const rgb = variable("--cloud");
  for (const [x, y, depth] of seen) {
    context.fillStyle = `rgba(${rgb}, ${0.3 + 0.35 * (Math.max(-1, Math.min(1, depth)) + 1)})`;
    context.beginPath();
    context.arc(x * side, y * side, radius, 0, 2 * Math.PI);
    context.fill();
  }
}

function paintVector(canvas, values) {
  const { context, width, height } = prepare(canvas, 220, 120);
  const most = Math.max(...values.map(Math.abs), 1e-9), step = width / values.length;
  context.fillStyle = variable("--accent");
  context.font = "10px sans-serif";
  context.textAlign = "center";
  values.forEach((v, i) => {
    const tall = (v / most) * (height / 2 - 16);
    context.fillRect(i * step + 1, height / 2 - Math.max(tall, 0), Math.max(1, step - 2), Math.abs(tall));
    if (step > 26) context.fillText(v.toPrecision(3), (i + 0.5) * step, v > 0 ? height / 2 + 12 : height / 2 - 4);
  });
}

// The coordinates of a code, in deviations of the prior.
export function paintCode(canvas, code, deviation = 1) {
  const { context, width, height } = prepare(canvas);
  const step = width / code.length, unit = height / 7;
  context.fillStyle = variable("--rule");
  for (const level of [-2, 0, 2]) context.fillRect(0, height / 2 - level * unit, width, 1);
  code.forEach((z, i) => {
    const tall = Math.max(-3.4, Math.min(3.4, z / deviation)) * unit;
    context.fillStyle = variable(Math.abs(z) > 3 * deviation ? "--warm" : "--accent");
    const gap = step > 4 ? 1 : 0;
    context.fillRect(i * step + gap, height / 2 - Math.max(tall, 0), Math.max(1, step - 2 * gap), Math.abs(tall));
  });
}

// About `count` round numbers from low to high.
function ticks(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough);
  const first = Math.ceil(low / step - 1e-9), last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step);
}

// One term over the steps: thin as logged, thick as a running mean.
export function paintCurve(canvas, { step, value }) {
  const { context, width, height } = prepare(canvas);
  const left = 46, bottom = 18, top = 6;
  const known = value.map((v, i) => [step[i], v]).filter(([, v]) => v !== null);
  if (!known.length) return;
  const settled = known.slice(Math.floor(known.length / 50)).map(([, v]) => v).sort((a, b) => a - b);
  let low = settled[0], high = settled[Math.floor(0.995 * (settled.length - 1))];
  if (high - low < 1e-12) [low, high] = [low - 0.5, high + 0.5];
  const first = known[0][0], last = Math.max(known.at(-1)[0], first + 1);
  const x = (s) => left + ((s - first) / (last - first)) * (width - left - 4);
  const y = (v) => top + (1 - (v - low) / (high - low)) * (height - top - bottom);
  context.font = "10px sans-serif";
  context.fillStyle = variable("--quiet");
  context.strokeStyle = variable("--rule");
  for (const v of ticks(low, high, 4)) {
    context.textAlign = "right";
    context.fillText(Number(v.toPrecision(4)).toString(), left - 6, y(v) + 3);
    context.strokeRect(left, Math.round(y(v)) + 0.5, width - left - 4, 0);
  }
  context.textAlign = "left";
  context.fillText(first, left, height - 4);
  context.textAlign = "right";
  context.fillText(last, width - 4, height - 4);
  context.save();
  context.beginPath();
  context.rect(left, 0, width - left, height - bottom + 2);
  context.clip();
  const line = (points, style, thick) => {
    context.strokeStyle = style;
    context.lineWidth = thick;
    context.beginPath();
    points.forEach(([s, v], i) => (i ? context.lineTo(x(s), y(v)) : context.moveTo(x(s), y(v))));
    context.stroke();
  };
  line(known, variable("--faint"), 1);
  const reach = Math.max(1, Math.round(known.length / 25));
  const smooth = known.map(([s], i) => {
    const near = known.slice(Math.max(0, i - reach), i + reach + 1);
    return [s, near.reduce((sum, [, v]) => sum + v, 0) / near.length];
  });
  line(smooth, variable("--accent"), 1.8);
  context.restore();
}
