// The page: which run, which view, and the words around it.

import { ask } from "./api.js";
import { classes, h } from "./parts.js";
import { fromLink, saveArray, savePicture, toLink } from "./save.js";
import { tour } from "./tour.js";
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
// The views in which a class is chosen, and what an unchosen one stands for.
const CLASSES = { map: "", sample: "all classes", traverse: "that of the sample", clouds: "all classes", compare: "" };
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
  const [id, name, shared] = location.hash.slice(1).split("/");
  const run = runs.find((one) => one.id === id) ?? runs[0];
  if (shared && run.id === id) adopt(run, name, shared);
  const view = run.views.includes(name) ? name : run.views[0];
  leave();
  leave = () => {};
  if (!shared) say("");
  if (id && run.id !== id) say(`The address names the run ${id}, which is not open here; this is ${run.name}.`, true);
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
  const steered = run.conditional && view in CLASSES;
  part("view").replaceChildren(
    ...(steered ? [h("div", { className: "bar" }, classes(run, states[run.id], open, CLASSES[view]))] : []), root);
  let samples;
  const holds = (found) => { samples = found; };
  const context = { run, runs, root, state: states[run.id], go, say, fail, refresh, holds };
  keep(run, view, () => samples);
  leave = VIEWS[view].open(context) ?? leave;
}

// Takes the state of a link, once: the address is a plain one again.
function adopt(run, view, shared) {
  try {
    states[run.id] = { ...fromLink(shared), linked: true };
  } catch {
    say("The link is damaged; its settings were ignored.", true);
  }
  history.replaceState(null, "", `#${run.id}/${view}`);
}

// The buttons that save a view and share it.
function keep(run, view, samples) {
  const name = `${run.id}-${view}`, button = (id, text, onclick) => h("button", { type: "button", id, onclick }, text);
  part("keep").replaceChildren(
    button("save-picture", "save picture", () => savePicture([...part("view").querySelectorAll(VIEWS[view].picture)], name)),
    ...(view === "run" ? [] : [button("save-array", "save .npy", () => samples() && saveArray(samples(), name))]),
    button("share", "copy link", async () => {
      const link = `${location.origin}/#${run.id}/${view}/${toLink(states[run.id])}`;
      part("share").dataset.link = link;
      await navigator.clipboard?.writeText(link).then(
        () => say("Link copied. Whoever opens it needs the token."), () => say(link));
    }));
}

async function refresh() {
  runs = await ask("runs");
}

async function start() {
  await refresh();
  part("run").replaceChildren(...runs.map((run) => h("option", { value: run.id }, run.name)));
  part("run").addEventListener("change", (event) => go(event.target.value, location.hash.split("/")[1] ?? ""));
  part("start-tour").addEventListener("click", () => tour(runs.find((one) => one.id === part("run").value), go));
  window.addEventListener("hashchange", () => open().catch(fail));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", open);
  await open();
  document.body.dataset.ready = "yes";
}

start().catch(fail);
