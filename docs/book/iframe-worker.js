/* Browsers start no worker for a page that is opened from the disk. There, a hidden frame runs the
   worker of the search in its place; everywhere else this file does nothing. */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const inner = this.frame.contentWindow;
      inner.postMessage = (data) => setTimeout(() => this.receive(structuredClone(data)));
      this.loaded = new Promise((resolve) => {
        const script = inner.document.createElement("script");
        script.onload = () => resolve(inner);
        script.src = new URL(address, document.baseURI);
        inner.document.body.append(script);
      });
    }

    receive(data) {
      const message = new MessageEvent("message", { data });
      this.dispatchEvent(message);
      this.onmessage?.(message);
    }

    postMessage(data) {
      const message = new MessageEvent("message", { data: structuredClone(data) });
      this.loaded.then((inner) => inner.dispatchEvent(message));
    }

    terminate() {
      this.frame.remove();
    }
  };
}
