import { ask, latest, unpack } from "../api.js";
import { COLOURS, colourOf, paintCode, prepare, variable } from "../draw.js";
import { choice, h, picker, tile } from "../parts.js";

export const title = "Map";
export const picture = "#plane";
export const line = "Codes of test samples over the prior's density. Hover to see a sample, click to decode "
  + "a point of the plane, drag to move through latent space. A drag that starts on a code keeps "
  + "that code's component orthogonal to the plane.";

export function open({ run, root, state, fail, holds }) {
  const canvas = h("canvas", {
    className: "plane", id: "plane", tabIndex: 0, role: "img", arialabel: "Map of codes; arrow keys move the decoded point",
  });
  const decoded = tile("large", "decoded"), hovered = tile("medium", "hovered");
  hovered.element.hidden = true;
  const bars = h("canvas", { className: "bars" });
  const distances = h("p", { className: "quiet", id: "distances" });
  const legend = h("div", { className: "legend", role: "group", arialabel: "Classes in colour", id: "legend" });
  const count = run.classes.length, letters = run.classes.every((name) => [...name].length === 1);
  // ten classes are in colour at first, of more a few over the whole range
  state.lit ??= count <= COLOURS.length ? run.classes.map((_, k) => k)
    : Array.from({ length: 6 }, (_, k) => Math.round((k * (count - 1)) / 5));
  let map, at, across, over = -1;

  function colour(label) {
    const place = count <= COLOURS.length ? label : state.lit.indexOf(label);
    return state.lit.includes(label) ? colourOf(place) : variable("--quiet");
  }

  const toScreen = ([a, b], side) => {
    const [left, right, low, high] = map.extent;
    return [((a - left) / (right - left)) * side, (1 - (b - low) / (high - low)) * side];
  };
  const toPlane = (x, y) => {
    const side = canvas.clientWidth, [left, right, low, high] = map.extent;
    return [left + (x / side) * (right - left), high - (y / side) * (high - low)];
  };
  const inPlane = (code) => map.axes.map((axis) =>
    axis.reduce((sum, v, i) => sum + v * (code[i] - map.origin[i]), 0));
  const codeAt = ([a, b]) => map.origin.map((o, i) =>
    o + a * map.axes[0][i] + b * map.axes[1][i] + (across ? across[i] : 0));

  function draw() {
    const { context, width } = prepare(canvas, canvas.clientWidth, canvas.clientWidth);
    const density = unpack(map.density), side = density.shape[2];
    const glow = new OffscreenCanvas(side, side), cells = glow.getContext("2d");
    const picture = cells.createImageData(side, side), rgb = variable("--cloud").split(",").map(Number);
    density.each(0).forEach((v, p) => picture.data.set([...rgb, 0.42 * v], 4 * p));
    cells.putImageData(picture, 0, 0);
    context.imageSmoothingQuality = "high";
    context.drawImage(glow, 0, 0, width, width);
    const lit = (i) => !map.labels || state.lit.includes(map.labels[i]);
    const order = map.places.map((_, i) => i).sort((i, j) => lit(i) - lit(j));
    context.font = "600 12px system-ui, sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    order.forEach((i) => {
      const [x, y] = toScreen(map.places[i], width);
      context.fillStyle = map.labels ? colour(map.labels[i]) : variable("--warm");
      context.globalAlpha = i === over ? 1 : lit(i) ? 0.8 : 0.25;
      if (map.labels && letters && lit(i)) {
        context.fillText(run.classes[map.labels[i]], x, y);
        if (i !== over) return;
      }
      context.beginPath();
      context.arc(x, y, i === over ? 5 : 2.6, 0, 2 * Math.PI);
      context.fill();
    });
    context.globalAlpha = 1;
    if (!at) return;
    const [x, y] = toScreen(at, width);
    context.strokeStyle = variable("--ink");
    context.lineWidth = 1.5;
    context.beginPath();
    context.arc(x, y, 8, 0, 2 * Math.PI);
    context.moveTo(x - 13, y); context.lineTo(x - 3, y); context.moveTo(x + 3, y); context.lineTo(x + 13, y);
    context.moveTo(x, y - 13); context.lineTo(x, y - 3); context.moveTo(x, y + 3); context.lineTo(x, y + 13);
    context.stroke();
  }

  const decode = latest(
    (code) => ask(`runs/${run.id}/decode`, { codes: [code], ...(run.conditional && { label: state.label ?? 0 }), ...(run.known && { given: state.given }) }, "map"),
    (samples, code) => {
      holds(unpack(samples));
      decoded.show(unpack(samples), 0, across ? "decoded, starting from a code" : "decoded point of the plane");
      decoded.canvas.dataset.code = JSON.stringify(code);
      paintCode(bars, code);
    }, fail);
  const look = latest(
    (i) => ask(`runs/${run.id}/test?first=${map.index[i]}&count=1`, undefined, "hover"),
    (part, i) => {
      const label = part.labels ? `, ${run.classes[part.labels[0]]}` : "";
      hovered.element.hidden = false;
      hovered.show(unpack(part.samples), 0, `test ${map.index[i]}${label}`);
      hovered.canvas.dataset.index = map.index[i];
    }, fail);

  function nearest(x, y) {
    let best = -1, least = 8 * 8;
    map.places.forEach((place, i) => {
      const [u, v] = toScreen(place, canvas.clientWidth), away = (u - x) ** 2 + (v - y) ** 2;
      if (away < least) [best, least] = [i, away];
    });
    return best;
  }
  function move(event, begins) {
    if (!map) return;
    const { offsetX: x, offsetY: y } = event, near = nearest(x, y);
    if (near !== over) {
      over = near;
      if (near >= 0 && (begins || !event.buttons)) look(near);
    }
    if (begins) {
      across = undefined;
      if (near >= 0) {
        const code = map.codes[near], [a, b] = map.places[near];
        across = code.map((z, i) => z - map.origin[i] - a * map.axes[0][i] - b * map.axes[1][i]);
      }
    }
    if (event.buttons & 1) {
      at = state.at = toPlane(x, y);
      decode(codeAt(at));
    }
    requestAnimationFrame(draw);
  }
  canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); move(event, true); });
  canvas.addEventListener("pointermove", (event) => move(event, false));
  canvas.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!way || !at) return;
    event.preventDefault();
    const step = (map.extent[1] - map.extent[0]) / 60;
    at = state.at = [at[0] + step * way[0], at[1] + step * way[1]];
    decode(codeAt(at));
    draw();
  });

  async function show(plane) {
    if (plane !== state.plane) state.at = undefined;
    state.plane = plane;
    try {
      map = await ask(`runs/${run.id}/map/${plane}`, undefined, "plane");
    } catch (problem) {
      return fail(problem);
    }
    map.places = map.codes.map(inPlane);
    distances.textContent = map.distances.length
      ? `W₂ between codes and prior along the axes: ${map.distances.map((d) => d.toPrecision(3)).join(" and ")}.`
      : "";
    at = Array.isArray(state.at) && state.at.length === 2 ? state.at.map(Number) : [0, 0];
    across = undefined;
    canvas.dataset.extent = JSON.stringify(map.extent);
    draw();
    decode(codeAt(at));
  }

  function settle() {
    const all = ["all", "none"].map((text) => h("button", {
      type: "button", onclick() { state.lit = text === "all" ? run.classes.map((_, k) => k) : []; settle(); draw(); },
    }, text));
    legend.replaceChildren(...run.classes.map((name, label) => {
      const dot = h("span", { className: "dot" }), on = state.lit.includes(label);
      dot.style.color = colour(label);
      return h("button", {
        type: "button", ariapressed: String(on),
        onclick() {
          state.lit = on ? state.lit.filter((one) => one !== label) : [...state.lit, label];
          settle();
          legend.children[label].focus();
          draw();
        },
      }, dot, name);
    }), ...all);
  }
  if (count && count <= 200) settle();
  const encodes = run.views.includes("reconstruct");
  root.append(
    h("div", { className: "bar" }, ...(encodes && run.prior !== null
      ? [choice("Plane", { principal: "principal directions", worst: "least like the prior" }, state.plane ?? "principal", show)]
      : [])),
    h("div", { className: "split" },
      h("div", { className: "stack" }, canvas, legend, distances),
      h("div", { className: "stack result" }, decoded.element, bars, hovered.element,
        ...(run.known ? [picker({ run, state, fail }, "given", () => at && decode(codeAt(at)))] : []))));
  show(state.plane ??= "principal");
  const resized = new ResizeObserver(() => map && draw());
  resized.observe(canvas);
  return () => resized.disconnect();
}
