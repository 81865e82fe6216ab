import { ask, latest, unpack } from "../api.js";
import { choice, field, h, number, picker, tiles } from "../parts.js";

export const title = "Compare";
export const picture = "#lines canvas";
export const line = "Several runs decode the same codes, or reconstruct the same sample.";

const COUNT = 10;

export function open({ run, runs, root, state, fail, holds }) {
  const alike = runs.filter((one) => one.shape.join() === run.shape.join() && one.kind === run.kind);
  const lines = h("div", { className: "lines", id: "lines" });
  const chosen = new Set(alike.map((one) => one.id));
  const controls = h("div", { className: "bar" });
  const encodes = run.views.includes("reconstruct"), draws = run.prior !== null;
  state.same ??= draws ? "code" : "sample";
  state.codes ??= 0;

  const same = {
    async code(seed) {
      const { codes } = await ask(`runs/${run.id}/codes`, { count: COUNT, seed });
      const found = alike.filter((one) => chosen.has(one.id) && one.latent === run.latent);
      return Promise.all(found.map(async (one) => ({
        one, samples: unpack(await ask(`runs/${one.id}/decode`, { codes, ...(one.conditional && { label: state.label ?? 0 }) })), note: "",
      })));
    },
    async sample(pick) {
      const found = alike.filter((one) => chosen.has(one.id) && one.views.includes("reconstruct"));
      return Promise.all(found.map(async (one) => {
        const { label, ...plain } = pick;
        const reply = await ask(`runs/${one.id}/reconstruct`, { sample: one.conditional ? pick : plain });
        return { one, samples: unpack(reply.reconstruction), note: `error ${reply.cost.toPrecision(4)}` };
      }));
    },
  };
  const show = latest(
    ({ way, what }) => same[way](what),
    (found, asked) => {
      const every = found.flatMap(({ samples }) => Array.from({ length: samples.count }, (_, i) => samples.each(i)));
      holds({ kind: run.kind, shape: [every.length, ...run.shape], count: every.length, each: (i) => every[i] });
      lines.replaceChildren(...found.flatMap(({ one, samples, note }) => {
        const grid = tiles(samples, COUNT);
        grid.dataset.run = one.id;
        return [h("div", {}, one.name, h("p", { className: "quiet" }, [one.recipe, note].filter(Boolean).join(", "))), grid];
      }));
      if (!found.length) lines.replaceChildren(h("p", { className: "quiet" }, "No run is selected."));
      lines.dataset.shown = JSON.stringify(asked);
    }, fail);
  const again = () => state.same === "code"
    ? show({ way: "code", what: state.codes })
    : state.sample && show({ way: "sample", what: state.sample });

  function settle() {
    const by = state.same === "code"
      ? field("Seed of the codes", number(state.codes, 0, 1e9, (seed) => { state.codes = seed; again(); }, "seed"))
      : picker({ run, state, fail }, "sample", again);
    controls.replaceChildren(
      ...(encodes && draws ? [field("The same", choice("The same", { code: "codes", sample: "sample" }, state.same,
        (way) => { state.same = way; settle(); }))] : []), by);
    if (state.same === "code") again();
  }
  if (!encodes) state.same = "code";
  const boxes = alike.map((one) => h("label", {}, h("input", {
    type: "checkbox", checked: true, value: one.id,
    onchange() { this.checked ? chosen.add(one.id) : chosen.delete(one.id); again(); },
  }), ` ${one.name}`));
  root.append(controls, h("div", { className: "bar" }, ...boxes), lines,
    h("p", { className: "quiet" }, alike.length < 2
      ? "To compare runs, open several of the same sample shape: monge explore RUN RUN."
      : "Only runs with as many latent dimensions can decode the same codes."));
  settle();
}
