// A tour of one minute: a box that names the parts of the page in turn.

import { h } from "./parts.js";

const STOPS = [
  [null, "#run", "This page explores trained models. Choose a run here; the views below are those that its model supports."],
  ["map", "#plane", "Each mark is the code of a test sample; the shading is the density of the prior. Hover to see a sample; drag, or press the arrow keys, to decode points along the way."],
  ["sample", "#samples", "New samples. The same seed gives the same samples as monge sample. Temperature, where a model has one, trades diversity for typicality."],
  ["traverse", ".sliders", "Each slider moves the code along one principal direction, in standard deviations."],
  ["interpolate", "#strip", "The path from one sample to another, frame by frame."],
  ["reconstruct", "#facts", "A test image, or your own: its reconstruction, its error, and how typical its code is."],
  ["complete", "#brush", "Paint over a part, and the model completes it."],
  ["run", "#curves", "Loss curves and figures, refreshed during training."],
  [null, "#keep", "Every view can be saved as a picture or as .npy, and shared as a link."],
];

export function tour(run, go) {
  end();
  const stops = STOPS.filter(([view]) => view === null || run.views.includes(view));
  const text = h("p", { id: "tour-text" }), next = h("button", { type: "button", id: "tour-next" }, "next");
  const box = h("div", {
    id: "tour", role: "dialog", arialabelledby: "tour-text",
    onkeydown: (event) => event.key === "Escape" && end(),
  }, text, h("div", { className: "together" }, next, h("button", { type: "button", id: "tour-end", onclick: end }, "end")));
  let at = -1;
  next.addEventListener("click", forward);
  document.body.append(box);
  forward();

  async function forward() {
    at += 1;
    if (at === stops.length) return end();
    const [view, selector, said] = stops[at];
    if (view) go(run.id, view);
    text.textContent = `${at + 1} of ${stops.length}. ${said}`;
    next.textContent = at === stops.length - 1 ? "done" : "next";
    next.focus();
    point(null);
    for (let tries = 0; tries < 40 && !document.querySelector(selector); tries++) {
      await new Promise((done) => setTimeout(done, 50));
    }
    if (document.body.contains(box)) point(document.querySelector(selector));
  }
}

function point(element) {
  document.querySelector(".pointed")?.classList.remove("pointed");
  element?.classList.add("pointed");
}

function end() {
  point(null);
  document.getElementById("tour")?.remove();
}
