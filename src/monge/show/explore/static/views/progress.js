import { ask } from "../api.js";
import { paintCurve } from "../draw.js";
import { h } from "../parts.js";

export const title = "Run";
export const picture = "#curves canvas";
export const line = "Curves and evaluation, refreshed every two seconds during training.";

export function open({ run, root, go, fail, refresh }) {
  const head = h("div", { className: "bar" }), curves = h("div", { className: "curves", id: "curves" });
  const table = h("div", { id: "evaluation" }), config = h("pre", { id: "config" });
  const figure = (value) => (value === null ? "–" : Number(value.toPrecision(4)).toString());
  let before;

  async function load() {
    await ask(`runs/${run.id}/reload`, {}).catch(fail);
    await refresh();
    window.dispatchEvent(new HashChangeEvent("hashchange"));
  }
  async function read() {
    let found;
    try {
      found = await ask(`runs/${run.id}/progress`);
    } catch (problem) {
      return fail(problem);
    }
    const text = JSON.stringify(found);
    if (text === before) return;
    before = text;
    head.replaceChildren(
      h("p", {}, `step ${found.step.toLocaleString("en")}, ${Math.round(found.seconds).toLocaleString("en")} s of training`),
      ...(found.newest && found.newest !== run.checkpoint
        ? [h("button", { type: "button", id: "reload", onclick: load }, `load ${found.newest}`)] : []));
    head.dataset.step = found.step;
    // what a critic or another divergence minimises comes after the terms of the model
    found.curves.sort((a, b) => a.name.endsWith("inner") - b.name.endsWith("inner"));
    curves.replaceChildren(...found.curves.map(({ name }) =>
      h("figure", {}, h("canvas", { className: "curve" }), h("figcaption", {}, name))));
    found.curves.forEach((curve, i) => paintCurve(curves.children[i].firstChild, curve));
    const rows = found.figures.map((one) => h("tr", {},
      ...[one.name, figure(one.value), figure(one.deviation), figure(one.floor)].map((cell) => h("td", {}, cell))));
    const heads = h("tr", {}, ...["figure", "value", "±", "floor"].map((cell) => h("th", {}, cell)));
    table.replaceChildren(...(rows.length
      ? [h("table", {}, heads, ...rows), h("p", { className: "quiet" },
        Object.entries(found.protocol).map(([name, value]) => `${name}: ${value}`).join("; "))]
      : [h("p", { className: "quiet" }, `Not evaluated yet: run monge evaluate ${run.name}`)]));
    config.textContent = JSON.stringify(found.config, null, 2);
  }
  root.append(head, curves, h("h2", {}, "Evaluation"), table, 
    h("details", {}, h("summary", {}, h("h2", {}, "Configuration")), config));
  read();
  const timer = setInterval(read, 2000);
  return () => clearInterval(timer);
}
