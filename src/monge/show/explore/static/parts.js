// Parts that several views share: elements, tiles, choices, and the picker of a sample.

import { ask, pack, unpack } from "./api.js";
import { paint } from "./draw.js";

// An element with properties, data-* under `data`, listeners under on…, and children.
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name.startsWith("aria") || name === "role") element.setAttribute(name.replace(/^aria/, "aria-"), value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

// A canvas with a caption; `show(samples, i, caption)` fills it.
export function tile(size, id) {
  const canvas = h("canvas", { className: "sample", width: 1, height: 1, ...(id && { id }) });
  const caption = h("figcaption");
  const element = h("figure", { className: size }, canvas, caption);
  const show = (samples, i, text = "", ramp) => {
    paint(canvas, samples, i, ramp);
    caption.textContent = text;
  };
  return { element, canvas, caption, show };
}

// Canvases of all samples, in a grid.
export function tiles(samples, columns, pick) {
  const grid = h("div", { className: "grid" });
  grid.style.setProperty("--columns", columns);
  for (let i = 0; i < samples.count; i++) {
    const canvas = paint(h("canvas"), samples, i);
    if (pick) {
      canvas.classList.add("pick");
      canvas.addEventListener("click", () => pick(i));
    }
    grid.append(canvas);
  }
  return grid;
}

// Buttons, one of which is pressed.
export function choice(name, options, value, change) {
  const buttons = Object.entries(options).map(([key, text]) =>
    h("button", {
      type: "button", data: { value: key }, ariapressed: String(key === value),
      onclick() {
        for (const other of buttons) other.setAttribute("aria-pressed", String(other === this));
        change(key);
      },
    }, text));
  return h("div", { className: "choice", role: "group", arialabel: name }, ...buttons);
}

export function field(text, input) {
  return h("label", { className: "field" }, text, input);
}

export function number(value, least, most, change, id) {
  return h("input", {
    type: "number", min: least, max: most, value, ...(id && { id }),
    onchange() {
      this.value = Math.max(least, Math.min(most, Math.round(Number(this.value) || 0)));
      change(Number(this.value));
    },
  });
}

export function range(value, least, most, step, input, id) {
  return h("input", {
    type: "range", min: least, max: most, step, value, ...(id && { id }),
    oninput() { input(Number(this.value)); },
  });
}

// The class to draw from or to decode to, of a class-conditional run: kept in `state.label`, undefined where none
// is chosen, which `unchosen` describes; without a description, it is the first class.
export function classes(run, state, change, unchosen) {
  const options = [...(unchosen ? [["", unchosen]] : []), ...run.classes.map((name, i) => [i, name])];
  return field("Class", h("select", {
    id: "class",
    onchange() { state.label = this.value === "" ? undefined : Number(this.value); change(); },
  }, ...options.map(([value, text]) => h("option", { value, selected: String(state.label ?? "") === String(value) }, text))));
}

// A test sample, or an image that is uploaded, dropped or drawn at random. The choice is kept in
// `state[name]`, and `change` is called with it, also at the start.
export function picker({ run, state, fail }, name, change) {
  const shown = tile("small", `pick-${name}`);
  state[name] ??= { index: name === "b" ? Math.min(1, run.test - 1) : 0 };

  async function use(pick) {
    try {
      if (pick.index !== undefined) {
        const part = await ask(`runs/${run.id}/test?first=${pick.index}&count=1`);
        const label = part.labels ? `, ${run.classes[part.labels[0]]}` : "";
        shown.show(unpack(part.samples), 0, `test ${pick.index}${label}`);
        if (run.conditional) pick = { ...pick, label: part.labels[0] };
      } else {
        if (run.conditional) pick = { label: state.label ?? 0, ...pick };
        const label = run.conditional ? `, as ${run.classes[pick.label]}` : "";
        shown.show(unpack({ kind: run.kind, shape: [1, ...run.shape], data: pick.data }), 0, `your own${label}`);
      }
      state[name] = pick;
      invert.hidden = pick.data === undefined || run.kind !== "image";
      change(pick);
    } catch (problem) {
      fail(problem);
    }
  }
  async function upload(file) {
    if (!file) return;
    try {
      const samples = await ask(`runs/${run.id}/image`, file);
      await use({ data: samples.data });
    } catch (problem) {
      fail(problem);
    }
  }
  const invert = h("button", {
    type: "button", hidden: true,
    onclick: () => {
      const { each } = unpack({ kind: "image", shape: [1, ...run.shape], data: state[name].data });
      use({ data: pack(each(0).map((v) => 255 - v)) });
    },
  }, "invert");
  const file = h("input", {
    type: "file", id: `file-${name}`, accept: "image/png,image/jpeg,image/webp,image/gif,image/bmp",
    onchange() { upload(this.files[0]); this.value = ""; },
  });
  const index = number(state[name].index ?? 0, 0, run.test - 1, (i) => use({ index: i }), `index-${name}`);
  const controls = [index, h("button", {
    type: "button",
    onclick: () => { index.value = Math.floor(Math.random() * run.test); use({ index: Number(index.value) }); },
  }, "random")];
  if (run.kind === "image") {
    controls.push(h("button", { type: "button", onclick: () => file.click() }, "your image…"), file, invert);
  }
  const element = h("div", {
    className: "picker",
    ondragover(event) { event.preventDefault(); this.classList.add("over"); },
    ondragleave() { this.classList.remove("over"); },
    ondrop(event) {
      event.preventDefault();
      this.classList.remove("over");
      if (run.kind === "image") upload(event.dataTransfer.files[0]);
    },
  }, shown.element, h("div", { className: "stack" },
    h("span", { className: "quiet" }, run.kind === "image" ? "Test image, or drop your own" : "Test sample"),
    h("div", { className: "row" }, ...controls)));
  use(state[name]);
  return element;
}
