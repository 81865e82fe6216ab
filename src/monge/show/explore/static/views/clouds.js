import { ask, latest, unpack } from "../api.js";
import { paintCloud } from "../draw.js";
import { choice, field, h, number } from "../parts.js";

export const title = "Clouds";
export const picture = "#cloud";
export const line = "Clouds of points, drawn or reconstructed. Drag to turn them, all together.";

export function open({ run, root, state, fail, holds }) {
  const large = h("canvas", { className: "turn", id: "cloud", tabIndex: 0 });
  const strip = h("div", { className: "grid", id: "clouds" });
  const caption = h("p", { className: "quiet" });
  const turn = state.turn ??= { yaw: -0.6, pitch: 0.35 };
  let clouds, chosen = 0;
  state.source ??= "samples";
  strip.style.setProperty("--columns", 3);

  function draw() {
    if (!clouds) return;
    paintCloud(large, clouds.each(chosen), turn);
    large.dataset.turn = JSON.stringify(turn);
    large.dataset.chosen = chosen;
    [...strip.children].forEach((canvas, i) => {
      paintCloud(canvas, clouds.each(i), turn, 150);
      canvas.setAttribute("aria-selected", String(i === chosen));
    });
  }
  function show(found, text) {
    clouds = found;
    holds({ kind: run.kind, shape: [found.count, ...run.shape], count: found.count, each: found.each });
    chosen = 0;
    caption.textContent = text;
    strip.replaceChildren(...Array.from({ length: found.count }, (_, i) => h("canvas", {
      className: "sample cloud pick", onclick: () => { chosen = i; draw(); },
    })));
    draw();
  }
  const sampled = latest(
    (seed) => ask(`runs/${run.id}/sample`, { count: 9, seed, ...(run.conditional && { label: state.label }) }, "clouds"),
    (reply) => show(unpack(reply), "Nine draws of the model."), fail);
  const tested = latest(
    async (index) => Promise.all([0, 1, 2].map((i) =>
      ask(`runs/${run.id}/reconstruct`, { sample: { index: (index + i) % run.test } }))),
    (found) => {
      const each = found.flatMap(({ sample, reconstruction, near }) =>
        [unpack(sample), unpack(reconstruction), unpack(near)].map((one) => one.each(0)));
      show({ count: each.length, each: (i) => each[i] },
        "Test clouds, their reconstructions, and the training clouds nearest to them.");
    }, fail);
  const again = () => (state.source === "samples" ? sampled : tested)(Number(seed.value));

  large.addEventListener("pointerdown", (event) => large.setPointerCapture(event.pointerId));
  large.addEventListener("pointermove", (event) => {
    if (!(event.buttons & 1)) return;
    turn.yaw += event.movementX / 120;
    turn.pitch = Math.max(-1.5, Math.min(1.5, turn.pitch + event.movementY / 120));
    requestAnimationFrame(draw);
  });
  large.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!way) return;
    event.preventDefault();
    turn.yaw += 0.15 * way;
    draw();
  });
  const seed = number(0, 0, Math.max(1e6, run.test), again, "seed");
  root.append(
    h("div", { className: "bar" },
      field("Of", choice("Of", { samples: "samples", test: "test clouds" }, state.source, (source) => { state.source = source; again(); })),
      field("Seed or first index", h("div", { className: "together" }, seed, h("button", {
        type: "button", id: "next", onclick: () => { seed.value = Number(seed.value) + 1; again(); },
      }, "next")))),
    h("div", { className: "split" }, large, h("div", { className: "stack" }, strip, caption)));
  again();
  const resized = new ResizeObserver(draw);
  resized.observe(large);
  return () => resized.disconnect();
}
