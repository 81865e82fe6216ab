"""The explorer under many clients, beside a training that goes on.

    python benchmarks/explorer_load.py [--clients N] [--seconds S] [--out FILE.json]

trains a small model, serves it by `monge explore`, and starts another training. Each of 200
clients moves a slider and waits a second between its moves, as a person does; whoever is told 503
comes back after the time of `Retry-After`. One more client drags a slider without a pause.
Then, with nobody else, requests with and without a token are timed by turns.
"""

import argparse
import asyncio
import collections
import json
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

TOKEN = "token-of-the-benchmark"
PAUSE = 1.0


def resident(process: int) -> float:
    """MiB of memory that a process holds."""
    text = Path(f"/proc/{process}/status").read_text()
    return round(int(re.findall(r"VmRSS:\s+(\d+) kB", text)[0]) / 1024, 1)


def milliseconds(times: list[float]) -> dict[str, float]:
    """Median and 95 % quantile."""
    ordered = sorted(times)
    return {
        "median": round(1000 * statistics.median(ordered), 2),
        "95 %": round(1000 * ordered[int(0.95 * len(ordered))], 2),
    }


def started(run: Path, *more: str) -> tuple[subprocess.Popen, str]:
    """A server of a run and its address."""
    command = [sys.executable, "-m", "monge", "explore", str(run), "--port", "0", *more]
    environment = os.environ | {"MONGE_TOKEN": TOKEN}
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert server.stdout is not None
    return server, re.findall(r"http://[^/]+", server.stdout.readline())[0]


async def moved(client: httpx.AsyncClient, view: str, rng: random.Random) -> httpx.Response:
    """A move of a slider."""
    codes = {"codes": [[rng.gauss(0, 1) for _ in range(8)]]}
    return await client.post("/api/runs/run/decode", json=codes, headers={"x-view": view})


async def drag(
    address: str, number: int, until: float, pause: float, met: collections.Counter
) -> list[float]:
    """Moves a slider until a time; what was answered is counted, the times of moves returned."""
    rng, times = random.Random(number), []
    headers = {"authorization": f"token {TOKEN}"}
    async with httpx.AsyncClient(base_url=address, headers=headers, timeout=60) as client:
        await asyncio.sleep(pause * rng.random())
        while time.monotonic() < until:
            began = time.perf_counter()
            try:
                answer = await moved(client, f"page-{number}/traverse", rng)
            except httpx.HTTPError as error:
                met[type(error).__name__] += 1
                continue
            met[str(answer.status_code)] += 1
            if answer.status_code == 200:
                times.append(time.perf_counter() - began)
                await asyncio.sleep(pause)
            else:
                if "retry-after" not in answer.headers:
                    met[f"{answer.status_code} without Retry-After"] += 1
                await asyncio.sleep(int(answer.headers.get("retry-after", 1)))
    return times


async def loaded(address: str, clients: int, seconds: float, process: int) -> dict:
    """What many clients meet, and the memory of the server meanwhile."""
    met, one = collections.Counter(), collections.Counter()
    until, memory = time.monotonic() + seconds, []

    async def watch() -> None:
        for _ in range(13):
            memory.append(resident(process))
            await asyncio.sleep(seconds / 12.5)

    others = [drag(address, i, until, PAUSE, met) for i in range(clients)]
    times, _, *waits = await asyncio.gather(drag(address, -1, until, 0.03, one), watch(), *others)
    return {
        "clients": clients,
        "seconds": seconds,
        "answers by status": dict(sorted(met.items())),
        "answers to the one who drags": dict(sorted(one.items())),
        "a move of the one who drags, ms": milliseconds(times),
        "a move of the others, ms": milliseconds([one for some in waits for one in some]),
        "memory in thirteen parts, MiB": memory,
    }


def token_costs(run: Path, times: int) -> dict:
    """A request to servers with a token and without, by turns."""
    servers = [started(run), started(run, "--no-token")]
    found: list[list[float]] = [[], []]
    headers = {"authorization": f"token {TOKEN}"}
    try:
        clients = [httpx.Client(base_url=address, headers=headers) for _, address in servers]
        for i in range(times):
            for client, spent in zip(clients, found):
                began = time.perf_counter()
                client.get("/api/runs").raise_for_status()
                if i >= times // 10:
                    spent.append(time.perf_counter() - began)
    finally:
        for server, _ in servers:
            server.terminate()
            server.wait()
    return {"with a token, ms": milliseconds(found[0]), "without, ms": milliseconds(found[1])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        train = [sys.executable, "-m", "monge", "train", "wae-mmd", "--data", "digits"]
        train += ["--latent", "8", "--threads", "1"]
        run = place / "run"
        subprocess.run([*train, "--steps", "200", "--out", str(run)], check=True, stdout=-3)
        forever = [*train, "--steps", "1000000", "--out", str(place / "other")]
        training = subprocess.Popen(forever, stdout=subprocess.DEVNULL)
        server, address = started(run)
        try:
            asyncio.run(loaded(address, 5, 5, server.pid))  # a warm-up
            found = asyncio.run(loaded(address, given.clients, given.seconds, server.pid))
            found["training goes on"] = training.poll() is None
        finally:
            for one in (server, training):
                one.terminate()
                one.wait()
        found["one request, nobody else"] = token_costs(run, 2000)
    found["machine"] = {
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
    }
    text = json.dumps(found, indent=1) + "\n"
    print(text)
    if given.out:
        given.out.write_text(text)
    answers = found["answers by status"] | found["answers to the one who drags"]
    sys.exit(not set(answers) <= {"200", "503"})


if __name__ == "__main__":
    main()
