// Requests to the server, and its samples as typed arrays.

export class Problem extends Error {
  constructor(status, { error, message }) {
    super(message);
    this.status = status;
    this.error = error;
  }
}

const page = Math.random().toString(36).slice(2, 10);

// The reply to a request. `view` names what it is for: the server drops an older one that waits.
export async function ask(path, body, view) {
  const headers = view ? { "X-View": `${page}/${view}` } : {};
  const options = { headers };
  if (body instanceof Blob) {
    Object.assign(options, { method: "POST", body });
    headers["Content-Type"] = body.type;
  } else if (body !== undefined) {
    Object.assign(options, { method: "POST", body: JSON.stringify(body) });
    headers["Content-Type"] = "application/json";
  }
  const reply = await fetch(`/api/${path}`, options);
  const content = await reply.json();
  if (!reply.ok) throw new Problem(reply.status, content);
  return content;
}

// A function that sends only the latest request: one is in flight, one may wait, and a newer one
// replaces the one that waits.
export function latest(question, show, fail) {
  let busy = false, next;
  return async function asked(value) {
    next = { value };
    if (busy) return;
    busy = true;
    while (next) {
      const { value } = next;
      next = undefined;
      try {
        const reply = await question(value);
        if (!next) show(reply, value);
      } catch (problem) {
        if (problem.error !== "superseded") fail(problem);
      }
    }
    busy = false;
  };
}

// `Samples` of the API as { kind, shape, count, each(i) }.
export function unpack({ kind, shape, data }) {
  const text = atob(data);
  const bytes = Uint8Array.from({ length: text.length }, (_, i) => text.charCodeAt(i));
  const values = kind === "image" ? bytes : new Float32Array(bytes.buffer);
  const size = shape.slice(1).reduce((a, b) => a * b, 1);
  return { kind, shape, count: shape[0], each: (i) => values.subarray(i * size, (i + 1) * size) };
}

// base64 of bytes or floats.
export function pack(values) {
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  let text = "";
  for (let i = 0; i < bytes.length; i += 4096) {
    text += String.fromCharCode(...bytes.subarray(i, i + 4096));
  }
  return btoa(text);
}
