import { ask, latest, pack, unpack } from "../api.js";
import { choice, field, h, number, range, tiles } from "../parts.js";

export const title = "Sample";
export const picture = "#samples canvas";
export const line = "Samples from the model. A seed gives the same first samples whatever their number, and the same as "
  + "monge sample --seed. A temperature below 1 stays closer to the centre of the prior.";

export function open({ run, root, state, go, fail, holds }) {
  const wanted = state.draw ??= { count: 64, seed: 0, sampler: "prior", temperature: 1, ...(run.guidance !== null && { guidance: run.guidance }) };
  const place = h("div", { id: "samples" });
  const encodes = run.views.includes("reconstruct");
  const draw = latest(
    (body) => ask(`runs/${run.id}/sample`, body, "sample"),
    (reply, body) => {
      const samples = unpack(reply);
      holds(samples);
      place.replaceChildren(tiles(samples, Math.ceil(Math.sqrt(samples.count)), encodes && ((i) => {
        state.base = { data: pack(samples.each(i)), ...(reply.labels && { label: reply.labels[i] }) };
        go(run.id, "traverse");
      })));
      place.dataset.drawn = JSON.stringify(body);
    }, fail);
  const asked = () => ({ ...wanted, ...(run.conditional && { label: state.label }) });
  const again = (name) => (value) => { wanted[name] = value; draw(asked()); };
  const seed = number(wanted.seed, 0, 1e9, again("seed"), "seed");
  const guided = h("output", {}, (wanted.guidance ?? 1).toFixed(1));
  const heat = h("output", {}, wanted.temperature.toFixed(2));
  const sizes = { image: [16, 36, 64, 100], cloud: [4, 9, 16], vector: [16, 36, 64] }[run.kind];
  if (!sizes.includes(wanted.count)) wanted.count = sizes.at(-1);
  root.append(
    h("div", { className: "bar" },
      field("Number", choice("Number", Object.fromEntries(sizes.map((n) => [n, n])), String(wanted.count),
        (n) => again("count")(Number(n)))),
      field("Seed", h("div", { className: "together" }, seed, h("button", {
        type: "button", id: "next",
        onclick: () => { seed.value = Number(seed.value) + 1; again("seed")(Number(seed.value)); },
      }, "next"))),
      ...(encodes ? [field("Codes from", choice("Sampler", { prior: "prior", mixture: "mixture of codes", flow: "flow of codes (takes a minute at first)" },
        wanted.sampler, again("sampler")))] : []),
      ...(run.prior !== null ? [field("Temperature", h("div", { className: "together" },
        range(wanted.temperature, 0.05, 2, 0.05, (t) => { heat.textContent = t.toFixed(2); again("temperature")(t); }, "temperature"),
        heat))] : []),
      ...(run.guidance !== null ? [field("Guidance (higher: more typical of the class)", h("div", { className: "together" },
        range(wanted.guidance, 0, 8, 0.1, (w) => { guided.textContent = w.toFixed(1); again("guidance")(w); }, "guidance"),
        guided))] : [])),
    place,
    h("p", { className: "quiet" }, encodes ? "Click a sample to traverse from its code." : ""));
  draw(asked());
}
