"""How fast the explorer answers, what it holds in memory, and onnxruntime beside PyTorch.

    monge train wae-mmd --data mnist --data-dir DIR --steps 3000 --out runs/mnist
    python benchmarks/explore.py runs/mnist --out benchmarks/explore.json

needs a Chromium (Debian's chromium, or any named below) and the extras `dev`.
"""

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import onnxruntime
import torch
from playwright.sync_api import sync_playwright

from monge.models import evaluating
from monge.runs import Run, export

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync")
MOVES, REQUESTS = 300, 10_000
SLIDE = """async (moves) => {
  const slider = document.querySelector("#direction-0");
  const canvas = document.querySelector("#traversed");
  const painted = () => new Promise((resolve) => {
    new MutationObserver((_, observer) => { observer.disconnect(); resolve(performance.now()); })
      .observe(canvas, { attributeFilter: ["data-code"] });
  });
  const times = [];
  for (let i = 0; i < moves; i++) {
    const done = painted(), began = performance.now();
    slider.value = 3 * Math.sin(i / 7) + 0.01 * (i % 3);
    slider.dispatchEvent(new Event("input"));
    times.push(await done - began);
    await new Promise(requestAnimationFrame);
  }
  return times;
}"""


def quantiles(times: list[float]) -> dict[str, float]:
    """Median and 95 % quantile, in milliseconds to a hundredth."""
    ordered = sorted(times)
    return {
        "median": round(statistics.median(ordered), 2),
        "95 %": round(ordered[int(0.95 * len(ordered))], 2),
    }


def resident(process: int) -> float:
    """MiB of memory that a process holds."""
    text = Path(f"/proc/{process}/status").read_text()
    return round(int(re.findall(r"VmRSS:\s+(\d+) kB", text)[0]) / 1024, 1)


def in_the_browser(address: str, name: str, found: dict) -> None:
    """Page ready, and slider to image."""
    browser = next(filter(None, map(shutil.which, BROWSERS)))
    with sync_playwright() as playwright:
        page = playwright.chromium.launch(executable_path=browser, args=FLAGS).new_page()
        began = time.perf_counter()
        page.goto(f"{address}#{name}/map")
        page.wait_for_selector("#decoded[data-code]")
        found["page ready, s"] = round(time.perf_counter() - began, 3)
        page.goto(f"{address}#{name}/traverse")
        page.wait_for_selector("#traversed[data-code]")
        page.evaluate(SLIDE, 30)
        found["slider to image, ms"] = quantiles(page.evaluate(SLIDE, MOVES))
        page.close()


def over_many_requests(address: str, name: str, dim: int, process: int, found: dict) -> None:
    """Time of a request, and memory."""
    path, times = f"{address}api/runs/{name}/decode", []
    with httpx.Client() as client:
        for i in range(1000 + REQUESTS):
            if i == 1000:
                before = resident(process)
            began = time.perf_counter()
            reply = client.post(path, json={"codes": [[(i % 100) / 50 - 1.0] * dim]})
            times.append(1000 * (time.perf_counter() - began))
            reply.raise_for_status()
    found["decode over HTTP, ms"] = quantiles(times[1000:])
    found[f"memory before and after {REQUESTS:,} requests, MiB"] = [before, resident(process)]


def milliseconds(call: Callable[[], object], times: int = 200) -> float:
    """The median of many calls, after a few."""
    found = []
    for _ in range(20 + times):
        began = time.perf_counter()
        call()
        found.append(1000 * (time.perf_counter() - began))
    return statistics.median(found[20:])


def exported(run: Run) -> dict:
    """Milliseconds an image of PyTorch and of onnxruntime, alone and in batches, one thread each:
    two pools of threads would wait for each other's cores."""
    found = {}
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        files = export.export(run, Path(folder) / "model.onnx")
        for file, part in zip(files, export.networks_of(run, 100)):
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            session = onnxruntime.InferenceSession(file, options, ["CPUExecutionProvider"])
            for count in (1, 100):
                inputs = {name: x[:count] for name, x in part.inputs.items()}
                arrays = {name: x.numpy() for name, x in inputs.items()}
                with evaluating(part.network):
                    ours = milliseconds(lambda part=part, inputs=inputs: part.network(**inputs))
                theirs = milliseconds(lambda s=session, x=arrays: s.run(None, x))
                found[f"{part.name}, batch {count}"] = {
                    "PyTorch": round(ours / count, 4),
                    "onnxruntime": round(theirs / count, 4),
                }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    run, found = Run(given.run), {}
    command = [sys.executable, "-m", "monge", "explore", str(given.run), "--port", "0"]
    command += ["--no-token"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = re.findall(r"http://[^/]+/", server.stdout.readline())[0]
        try:
            name = httpx.get(f"{address}api/runs").json()[0]["id"]
            in_the_browser(address, name, found)
            over_many_requests(address, name, run.model.prior.dim, server.pid, found)
        finally:
            server.terminate()
    result = {
        "model": {
            "recipe": run.config.recipe,
            "shape": run.settled.shape,
            "latent": run.settled.latent,
            "parameters": sum(p.numel() for p in run.model.parameters()),
        },
        "machine": {
            "cores": os.cpu_count(),
            "load": round(os.getloadavg()[0], 2),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
        "explorer": found,
        "milliseconds an image": exported(run),
    }
    text = json.dumps(result, indent=2, ensure_ascii=False) + "\n"
    print(text)
    if given.out:
        given.out.write_text(text)


if __name__ == "__main__":
    main()
