import { ask, latest, pack, unpack } from "../api.js";
import { field, choice, h, number, picker, range, tiles } from "../parts.js";

export const title = "Complete";
export const picture = "#completions canvas";
export const line = "Brush over what the model should not see; the model completes it, differently for each draw.";

export function open({ run, root, state, fail, holds }) {
  const [channels, height, width] = run.shape;
  const canvas = h("canvas", { className: "brush", id: "brush", width, height });
  const place = h("div", { id: "completions" });
  let image, known, trained, hides = true, radius = Math.max(1, Math.round(width / 9));
  state.seed ??= 0;

  const draw = latest(
    (body) => ask(`runs/${run.id}/complete`, body, "complete"),
    (reply, body) => {
      holds(unpack(reply));
      place.replaceChildren(tiles(unpack(reply), 4));
      place.dataset.shown = JSON.stringify(body);
    }, fail);
  function again() {
    if (!image || !known) return;
    const share = known.reduce((sum, v) => sum + v, 0) / known.length;
    if (share === 0 || share === 1) return fail(new Error("Leave a part to complete, and a part to complete it from."));
    draw({ sample: state.sample, known: pack(known), count: 8, seed: state.seed });
  }
  function paint() {
    const context = canvas.getContext("2d"), picture = context.createImageData(width, height);
    const values = image.each(0), size = width * height;
    for (let p = 0; p < size; p++) {
      const at = (c) => values[Math.min(c, channels - 1) * size + p];
      // the unknown part is tinted, in a chequer that no image has
      const chequer = (Math.floor(p / width) + (p % width)) % 2 ? 205 : 185;
      picture.data.set(known[p] ? [at(0), at(1), at(2), 255] : [chequer, chequer - 60, chequer - 100, 255], 4 * p);
    }
    context.putImageData(picture, 0, 0);
  }
  function stroke(event) {
    if (!(event.buttons & 1) || !image || !known) return;
    const x = (event.offsetX / canvas.clientWidth) * width, y = (event.offsetY / canvas.clientHeight) * height;
    for (let row = 0; row < height; row++) {
      for (let column = 0; column < width; column++) {
        if ((column + 0.5 - x) ** 2 + (row + 0.5 - y) ** 2 <= radius ** 2) known[row * width + column] = hides ? 0 : 1;
      }
    }
    paint();
  }
  canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); stroke(event); });
  canvas.addEventListener("pointermove", stroke);
  canvas.addEventListener("pointerup", again);

  function mask(values) {
    known = values;
    if (image) paint();
    again();
  }
  async function pick(chosen) {
    try {
      image = unpack(chosen.data
        ? { kind: "image", shape: [1, ...run.shape], data: chosen.data }
        : (await ask(`runs/${run.id}/test?first=${chosen.index}&count=1`)).samples);
      trained ??= unpack(await ask(`runs/${run.id}/mask`)).each(0).map((v) => (v ? 1 : 0));
    } catch (problem) {
      return fail(problem);
    }
    mask(known ?? trained.slice());
  }
  const advice = run.known === "random"
    ? "The run was trained with random unknown boxes: it completes any part."
    : `The run was trained with one known part (${run.known}): other masks are new to it.`;
  root.append(
    h("div", { className: "bar" }, picker({ run, state, fail }, "sample", pick)),
    h("div", { className: "split" },
      h("div", { className: "stack" }, place),
      h("div", { className: "stack" }, canvas,
        choice("Brush", { hide: "hide", show: "show" }, "hide", (way) => { hides = way === "hide"; }),
        field("Brush", range(radius, 1, Math.round(width / 3), 1, (r) => { radius = r; })),
        h("div", { className: "row" },
          h("button", { type: "button", id: "trained", onclick: () => mask(trained.slice()) }, "as trained"),
          h("button", { type: "button", id: "whole", onclick: () => { known = known.fill(1); paint(); } }, "all known")),
        field("Seed", number(state.seed, 0, 1e9, (seed) => { state.seed = seed; again(); }, "seed")),
        h("p", { className: "quiet" }, advice))));
}
