import { ask, latest, unpack } from "../api.js";
import { paint } from "../draw.js";
import { choice, field, h, picker, range, tile } from "../parts.js";

export const title = "Interpolate";
export const picture = "#strip canvas";
export const line = "From one sample's code to another's, along a straight line or a great circle. A great circle "
  + "stays as far from the origin as samples of a Gaussian prior.";

export function open({ run, root, state, fail, holds }) {
  const shown = tile("large", "frame"), strip = h("div", { className: "strip", id: "strip" });
  let frames, playing;
  state.path ??= "linear";
  const scrubber = range(0, 0, 1, 1, (i) => show(i), "scrubber");

  function show(i) {
    if (!frames) return;
    state.frame = i;
    shown.show(frames, i, `frame ${i + 1} of ${frames.count}`);
    [...strip.children].forEach((canvas, k) => canvas.setAttribute("aria-selected", String(k === i)));
  }
  const walk = latest(
    (body) => ask(`runs/${run.id}/interpolate`, body, "interpolate"),
    (reply, body) => {
      frames = unpack(reply);
      holds(frames);
      scrubber.max = frames.count - 1;
      strip.replaceChildren(...Array.from({ length: frames.count }, (_, i) => {
        const canvas = paint(h("canvas"), frames, i);
        canvas.classList.add("pick");
        canvas.addEventListener("click", () => { scrubber.value = i; show(i); });
        return canvas;
      }));
      strip.dataset.shown = JSON.stringify(body);
      scrubber.value = Math.min(state.frame ?? Number(scrubber.value), frames.count - 1);
      show(Number(scrubber.value));
    }, fail);
  const again = () => state.a && state.b && walk({ a: state.a, b: state.b, frames: 24, path: state.path });
  const play = h("button", {
    type: "button", ariapressed: "false",
    onclick() {
      if (playing) { clearInterval(playing); playing = undefined; }
      else playing = setInterval(() => {
        if (!frames) return;
        const last = frames.count - 1, t = Math.round(performance.now() / 90) % (2 * last);
        scrubber.value = t <= last ? t : 2 * last - t;
        show(Number(scrubber.value));
      }, 90);
      this.setAttribute("aria-pressed", String(Boolean(playing)));
    },
  }, "play");
  root.append(
    h("div", { className: "bar" },
      picker({ run, state, fail }, "a", again), picker({ run, state, fail }, "b", again),
      field("Path", choice("Path", { linear: "straight", spherical: "great circle" }, state.path,
        (path) => { state.path = path; again(); }))),
    h("div", { className: "split" },
      h("div", { className: "stack" }, strip, h("div", { className: "bar" }, scrubber, play)),
      h("div", { className: "result" }, shown.element)));
  return () => clearInterval(playing);
}
