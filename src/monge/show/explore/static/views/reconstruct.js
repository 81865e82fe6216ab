import { ask, latest, unpack } from "../api.js";
import { heat, paintCode } from "../draw.js";
import { h, picker, tile, tiles } from "../parts.js";

export const title = "Reconstruct";
export const picture = ".stack > .row canvas";
export const line = "A sample and its reconstruction: where they differ, how typical the code is of the prior, and "
  + "the nearest training samples.";

export function open({ run, root, state, fail, holds }) {
  const parts = { sample: tile("medium", "sample"), reconstruction: tile("medium", "reconstruction"), error: tile("medium", "error") };
  const bars = h("canvas", { className: "bars" }), facts = h("dl", { className: "facts", id: "facts" });
  const near = h("div", { id: "near" });
  const share = (value) => `${Math.round(100 * value)}%`;
  const show = latest(
    (pick) => ask(`runs/${run.id}/reconstruct`, { sample: pick }, "reconstruct"),
    (found, pick) => {
      const [x, y] = [found.sample, found.reconstruction].map((one) => unpack(one));
      holds({ ...x, count: 2, each: (i) => [x, y][i].each(0) });
      parts.sample.show(unpack(found.sample), 0, "the sample");
      parts.reconstruction.show(unpack(found.reconstruction), 0, "its reconstruction");
      if (found.error) parts.error.show(unpack(found.error), 0, "absolute error", heat);
      parts.error.element.hidden = !found.error;
      paintCode(bars, found.code);
      const values = {
        [run.kind === "cloud" ? "Chamfer distance" : "squared error"]: found.cost.toPrecision(4),
        "norm of the code": found.norm.toPrecision(3),
        ...(found.longer_than !== null && {
          "prior samples with a smaller norm": share(found.longer_than),
          "prior samples of higher density": share(found.sparser_than),
        }),
      };
      facts.replaceChildren(...Object.entries(values).flatMap(([name, text]) => [h("dt", {}, name), h("dd", {}, text)]));
      near.replaceChildren(
        h("h2", {}, "Nearest training samples"), tiles(unpack(found.near), 6),
        h("p", { className: "quiet" }, `squared distances ${found.near_distance.map((d) => d.toPrecision(3)).join(", ")}`));
      near.firstElementChild.nextElementSibling.style.maxWidth = "34rem";
      root.dataset.shown = JSON.stringify(pick);
    }, fail);
  root.append(
    h("div", { className: "bar" }, picker({ run, state, fail }, "sample", show)),
    h("div", { className: "split" },
      h("div", { className: "stack" }, h("div", { className: "row" }, ...Object.values(parts).map((part) => part.element)), near),
      h("div", { className: "stack" }, h("h2", {}, "Code"), bars, facts)));
}
