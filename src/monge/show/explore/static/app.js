// The page: which run, which view, and the words around it.

import { ask } from "./api.js";
import { classes, h } from "./parts.js";
import * as clouds from "./views/clouds.js";
import * as compare from "./views/compare.js";
import * as complete from "./views/complete.js";
import * as interpolate from "./views/interpolate.js";
import * as map from "./views/map.js";
import * as reconstruct from "./views/reconstruct.js";
import * as progress from "./views/progress.js";
import * as sample from "./views/sample.js";
import * as traverse from "./views/traverse.js";

const VIEWS = { map, sample, traverse, interpolate, reconstruct, complete, clouds, compare, run: progress };
const part = (id) => document.getElementById(id);
const states = {};
let runs = [], leave = () => {};

function say(text, problem = false) {
  part("status").textContent = text;
  part("status").classList.toggle("problem", problem);
}

function fail(problem) {
  say(problem.message, true);
}

function go(run, view) {
  location.hash = `${run}/${view}`;
}

// Opens what the address names, or the first run's first view.
async function open() {
  const [id, name] = location.hash.slice(1).split("/");
  const run = runs.find((one) => one.id === id) ?? runs[0];
  const view = run.views.includes(name) ? name : run.views[0];
  leave();
  leave = () => {};
  say("");
  document.title = `${run.name} · monge`;
  part("run").value = run.id;
  const shape = run.shape.join(" × ");
  part("about").textContent =
    `${run.recipe} on ${run.data}: ${run.kind}s of ${shape}, ${run.latent === null ? "no codes" : `${run.latent} latent dimensions`}, ${run.checkpoint}`;
  part("views").replaceChildren(...run.views.map((one) => h("a", {
    href: `#${run.id}/${one}`, ...(one === view && { ariacurrent: "page" }),
  }, VIEWS[one].title)));
  part("title").textContent = VIEWS[view].title;
  part("line").textContent = VIEWS[view].line;
  const root = h("div");
  states[run.id] ??= {};
  const steered = run.conditional && ["map", "sample", "traverse", "clouds", "compare"].includes(view);
  part("view").replaceChildren(...(steered ? [h("div", { className: "bar" }, classes(run, states[run.id], open))] : []), root);
  const context = { run, runs, root, state: states[run.id], go, say, fail, refresh };
  leave = VIEWS[view].open(context) ?? leave;
}

async function refresh() {
  runs = await ask("runs");
}

async function start() {
  await refresh();
  part("run").replaceChildren(...runs.map((run) => h("option", { value: run.id }, run.name)));
  part("run").addEventListener("change", (event) => go(event.target.value, location.hash.split("/")[1] ?? ""));
  window.addEventListener("hashchange", open);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", open);
  await open();
  document.body.dataset.ready = "yes";
}

start().catch(fail);
