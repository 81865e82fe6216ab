import { ask, latest, unpack } from "../api.js";
import { paintCode } from "../draw.js";
import { h, picker, range, tile } from "../parts.js";

export const title = "Traverse";
export const picture = "#traversed";
export const line = "Sliders along the principal directions of the codes, in standard deviations, from the code of "
  + "a sample or from the mean.";

export function open({ run, root, state, fail, holds }) {
  const shown = tile("large", "traversed"), bars = h("canvas", { className: "bars" });
  const sliders = h("div", { className: "sliders" });
  const encodes = run.views.includes("reconstruct");
  let axes, rest, places, inputs, restored = undefined;

  const code = () => rest.map((r, i) => axes.directions.reduce(
    (sum, direction, k) => sum + places[k] * axes.deviations[k] * direction[i], r));
  const decode = latest(
    (z) => ask(`runs/${run.id}/decode`, { codes: [z], ...(run.conditional && { label: state.label ?? state.base?.label ?? 0 }), ...(run.known && state.base && { given: state.base }) }, "traverse"),
    (samples, z) => {
      holds(unpack(samples));
      state.code = z;
      shown.show(unpack(samples), 0, "decoded");
      shown.canvas.dataset.code = JSON.stringify(z);
      paintCode(bars, z);
    }, fail);

  // Sets the sliders to a code, and keeps what of it lies across their directions.
  function start(base) {
    const away = base.map((z, i) => z - axes.mean[i]);
    places = axes.directions.map((direction, k) =>
      direction.reduce((sum, v, i) => sum + v * away[i], 0) / Math.max(axes.deviations[k], 1e-9));
    rest = base.map((z, i) => z - axes.directions.reduce(
      (sum, direction, k) => sum + places[k] * axes.deviations[k] * direction[i], 0));
    inputs.forEach(({ input, output }, k) => {
      input.value = places[k];
      output.textContent = places[k].toFixed(2);
    });
    decode(code());
  }
  const from = latest(
    (pick) => ask(`runs/${run.id}/encode`, { sample: pick }, "base"),
    ({ codes }) => { start(restored ?? codes[0]); restored = undefined; }, fail);

  async function begin() {
    try {
      axes = await ask(`runs/${run.id}/directions`);
    } catch (problem) {
      return fail(problem);
    }
    inputs = axes.directions.map((_, k) => {
      const output = h("output");
      const input = range(0, -3.5, 3.5, 0.01, (value) => {
        places[k] = value;
        output.textContent = value.toFixed(2);
        decode(code());
      }, `direction-${k}`);
      sliders.append(h("span", { className: "quiet" }, `direction ${k + 1}, σ ${axes.deviations[k].toFixed(2)}`), input, output);
      return { input, output };
    });
    const linked = state.linked && Array.isArray(state.code) && state.code.length === axes.mean.length;
    if (linked) restored = state.code.map(Number);
    state.linked = false;
    if (!encodes) return start(restored ?? axes.mean);
    root.prepend(h("div", { className: "bar" },
      picker({ run, state, fail }, "base", from),
      h("button", { type: "button", id: "mean", onclick: () => start(axes.mean) }, "from the mean")));
  }
  root.append(h("div", { className: "split" }, sliders, h("div", { className: "stack result" }, shown.element, bars)));
  begin();
}
