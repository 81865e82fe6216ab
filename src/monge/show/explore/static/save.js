// What is shown, as files: a picture of the canvases of a view, and their samples as .npy.

function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// The canvases beside each other as they are on the page; small images are enlarged pixel by pixel.
export function savePicture(canvases, name) {
  if (!canvases.length) return;
  const top = canvases[0].getBoundingClientRect().top;
  const columns = canvases.filter((one) => Math.abs(one.getBoundingClientRect().top - top) < 2).length;
  const [{ width, height }] = canvases, gap = 4;
  const scale = width < 160 ? Math.max(1, Math.floor(200 / width)) : 1;
  const cell = [width * scale + gap, height * scale + gap];
  const sheet = document.createElement("canvas");
  sheet.width = columns * cell[0] - gap;
  sheet.height = Math.ceil(canvases.length / columns) * cell[1] - gap;
  const context = sheet.getContext("2d");
  context.fillStyle = getComputedStyle(document.body).backgroundColor;
  context.fillRect(0, 0, sheet.width, sheet.height);
  context.imageSmoothingEnabled = false;
  canvases.forEach((canvas, i) => context.drawImage(
    canvas, (i % columns) * cell[0], Math.floor(i / columns) * cell[1], width * scale, height * scale));
  sheet.toBlob((blob) => download(blob, `${name}.png`));
}

// Samples as float32 in the layout of `monge sample --out FILE.npy`: images are in [0, 1].
export function npy({ kind, shape, count, each }) {
  const size = shape.slice(1).reduce((a, b) => a * b, 1), values = new Float32Array(count * size);
  for (let i = 0; i < count; i++) values.set(kind === "image" ? Float32Array.from(each(i), (v) => v / 255) : each(i), i * size);
  const sizes = [count, ...shape.slice(1)].join(", ");
  let head = `{'descr': '<f4', 'fortran_order': False, 'shape': (${sizes},), }`;
  head += " ".repeat(64 - ((10 + head.length + 1) % 64)) + "\n";
  const start = new Uint8Array([0x93, ...new TextEncoder().encode("NUMPY"), 1, 0, head.length & 255, head.length >> 8]);
  return new Blob([start, head, values]);
}

export function saveArray(samples, name) {
  download(npy(samples), `${name}.npy`);
}

// What of a state a link holds: no sample that was uploaded.
const SHARED = ["draw", "label", "plane", "at", "lit", "base", "sample", "given", "a", "b", "path", "frame", "seed",
  "turn", "source", "same", "codes", "code"];

export function toLink(state) {
  const kept = SHARED.filter((name) => state[name] !== undefined && !state[name]?.data);
  const text = JSON.stringify(Object.fromEntries(kept.map((name) => [name, state[name]])));
  return btoa(Array.from(new TextEncoder().encode(text), (v) => String.fromCharCode(v)).join(""))
    .replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

export function fromLink(text) {
  const bytes = Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
  const found = JSON.parse(new TextDecoder().decode(bytes));
  return Object.fromEntries(SHARED.filter((name) => Object.hasOwn(found, name)).map((name) => [name, found[name]]));
}
