"""The explorer's API: what it answers is what the Python API says, and what it refuses."""

import asyncio
import base64
import io
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from explored import TOKEN, client_of, serving, small
from httpx import Client
from PIL import Image

import monge
from monge import cli
from monge.config import override, read_config
from monge.data import as_floats
from monge.draws import generator
from monge.models import evaluating, spherical
from monge.models.flow import with_guidance
from monge.runs import Run
from monge.show.explore.access import Access
from monge.show.explore.addresses import bound
from monge.show.explore.routes import Refusal, Submit, site
from monge.show.explore.schemas import Samples
from monge.show.explore.server import identifiers, opened
from monge.show.explore.service import Explorer
from monge.show.explore.worker import Full, Worker
from monge.transport import wasserstein_1d


@pytest.fixture
def client(address):
    with client_of(address) as client:
        yield client


def tensor(reply: dict) -> torch.Tensor:
    """What `Samples` hold: bytes of images, floats of others."""
    dtype = "u1" if reply["kind"] == "image" else "<f4"
    content = base64.b64decode(reply["data"])
    return torch.from_numpy(np.frombuffer(content, dtype).copy()).view(reply["shape"])


def shown(x: torch.Tensor) -> torch.Tensor:
    """Images in [0, 1] as the page shows them; other samples as they are."""
    return (x.clamp(0, 1) * 255).round().to(torch.uint8) if x.ndim == 4 else x


def ask(client: Client, path: str, body=None, **headers):
    answer = client.get(path) if body is None else client.post(path, json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(answer, status: int, error: str) -> str:
    """The message of a typed refusal."""
    assert answer.status_code == status, answer.text
    problem = answer.json()
    assert set(problem) == {"error", "message"}
    assert problem["error"] == error
    assert "Traceback" not in answer.text
    return problem["message"]


def test_runs_are_listed_with_the_views_they_have(client):
    """A run has the views that its model can fill, and is known by identifier, not by path."""
    listed = {run["id"]: run for run in ask(client, "/api/runs")}
    assert listed["wae"]["shape"] == [1, 8, 8]
    assert listed["wae"]["checkpoint"] == "step-60"
    views = {name: set(run["views"]) for name, run in listed.items()}
    assert "complete" in views["conditional"]
    assert "complete" not in views["wae"]
    assert "clouds" in views["clouds"]
    assert "reconstruct" not in views["generator"]
    assert str(Path.cwd()) not in json.dumps(listed)
    assert identifiers(["A b", "a-b", "…"]) == ["a-b", "a-b--2", "run"]


@pytest.mark.parametrize("name", ["wae", "vae", "generator", "clouds", "table"])
def test_decode_is_the_models_decode(client, explorers, name):
    """POST decode equals Model.decode, byte for byte of images."""
    model = explorers[name].model
    codes = model.prior.sample(5, generator(1, "codes"))
    with evaluating(model):
        expected = shown(model.decode(codes))
    found = ask(client, f"/api/runs/{name}/decode", {"codes": codes.tolist()})
    assert torch.equal(tensor(found), expected)


def test_a_conditional_model_decodes_beside_what_it_is_given(client, explorers):
    """POST decode of a conditional run equals decode(z, given)."""
    explorer = explorers["conditional"]
    given, code = explorer.test([4]), torch.tensor([[0.5, -1.0]])
    with evaluating(explorer.model):
        expected = shown(explorer.completer.decode(code, given))
    body = {"codes": code.tolist(), "given": {"index": 4}}
    assert torch.equal(tensor(ask(client, "/api/runs/conditional/decode", body)), expected)


@pytest.mark.parametrize("name", ["wae", "conditional", "generator", "clouds", "table"])
def test_samples_are_those_of_the_command_line(client, explorers, name):
    """At temperature 1, POST sample draws what `monge sample --seed` draws; at 2 another."""
    body = {"count": 7, "seed": 3}
    expected = shown(explorers[name].run.sample(7, generator(3, "sample")))
    found = tensor(ask(client, f"/api/runs/{name}/sample", body))
    assert torch.equal(found, expected)
    warmer = tensor(ask(client, f"/api/runs/{name}/sample", body | {"temperature": 2}))
    assert not torch.equal(found, warmer)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """The explorer of a class-conditional run, and a client of its server."""
    path = tmp_path_factory.mktemp("labelled") / "run"
    explorer = Explorer(small("wae-mmd", "digits", path, latent=3, condition="labels"))
    with serving({"labels": explorer}) as address, client_of(address) as client:
        yield explorer, client


def test_a_class_conditional_run_draws_and_decodes_by_class(labelled):
    """POST sample draws the class that is asked for, or says which it drew; POST decode takes one,
    and both are the model's."""
    explorer, client = labelled
    (listed,) = ask(client, "/api/runs")
    assert listed["conditional"]
    run, body = explorer.run, {"count": 5, "seed": 3}
    for label in (None, 7):
        found = ask(client, "/api/runs/labels/sample", body | {"label": label})
        assert found["labels"] == [7] * 5 if label else len(set(found["labels"])) > 1
        expected = run.sample(5, generator(3, "sample"), labels=label)
        assert torch.equal(tensor(found), shown(expected))
    code = torch.tensor([[0.5, -1.0, 0.3]])
    for label in (0, 4):
        found = ask(client, "/api/runs/labels/decode", {"codes": code.tolist(), "label": label})
        with evaluating(run.model):
            expected = run.model.decode(code, torch.tensor([label]))
        assert torch.equal(tensor(found), shown(expected))


def test_samples_go_through_a_class_conditional_run_with_their_class(labelled):
    """Test samples with their own, others with that which the page gives."""
    explorer, client = labelled
    x, label = explorer.test([4]), int(explorer.source.test_labels[4])
    with evaluating(explorer.model):
        expected = explorer.model.encode(x, torch.tensor([label])).mean
    body = {"sample": {"index": 4}}
    found = torch.tensor(ask(client, "/api/runs/labels/encode", body)["codes"])
    torch.testing.assert_close(found, expected)
    made = ask(client, "/api/runs/labels/reconstruct", body)
    torch.testing.assert_close(torch.tensor(made["code"]), expected[0])
    ask(client, "/api/runs/labels/interpolate", {"a": {"index": 1}, "b": {"index": 4}})
    ask(client, "/api/runs/labels/map/principal")
    own = {"data": Samples.of(x, explorer.kind).data}
    path = "/api/runs/labels/encode"
    answer = client.post(path, json={"sample": own})
    assert "`label` is missing" in refused(answer, 422, "bad_argument")
    answer = client.post(path, json={"sample": own | {"label": 10}})
    assert "the classes are 0 to 9" in refused(answer, 422, "bad_argument")
    assert len(ask(client, path, {"sample": own | {"label": 3}})["codes"]) == 1


def test_guidance_of_a_flow_is_that_of_the_command_line(tmp_path):
    """POST sample with a guidance draws what the flow draws with it, and leaves the run's own."""
    run = small("flow-matching", "digits", tmp_path / "run", condition="labels")
    explorer = Explorer(run)
    with serving({"flow": explorer}) as address, client_of(address) as client:
        (listed,) = ask(client, "/api/runs")
        assert listed["guidance"] == 1
        body = {"count": 4, "seed": 3, "label": 5}
        plain = tensor(ask(client, "/api/runs/flow/sample", body))
        guided = tensor(ask(client, "/api/runs/flow/sample", body | {"guidance": 3}))
        assert not torch.equal(plain, guided)
        assert torch.equal(tensor(ask(client, "/api/runs/flow/sample", body)), plain)
        with_guidance(run.model, 3.0)
        expected = run.sample(4, generator(3, "sample"), labels=5)
        assert torch.equal(guided, shown(expected))
        answer = client.post("/api/runs/flow/sample", json=body | {"guidance": -1})
        assert answer.status_code == 422


def test_guidance_is_refused_of_other_models(client):
    assert all(run["guidance"] is None for run in ask(client, "/api/runs"))
    answer = client.post("/api/runs/wae/sample", json={"guidance": 2})
    assert "not a class-conditional flow" in refused(answer, 422, "bad_argument")


def test_a_notebook_keeps_its_loop_while_the_explorer_serves(explorers):
    """`run.explore()` returns at once, also in a running loop, and its page may be framed by this
    machine's notebooks only."""

    async def cell():
        embedded = explorers["wae"].run.explore(height=321)
        await asyncio.sleep(0)
        return embedded

    embedded = asyncio.run(cell())
    try:
        html = embedded._repr_html_()
        assert 'height="321"' in html
        token = re.search(r"token=([\w-]+)", html)[1]
        assert embedded.address in repr(embedded)
        with Client(base_url=f"http://127.0.0.1:{embedded.port}") as client:
            assert client.get("/").status_code == 403
            opened_page = client.get("/", params={"token": token})
            assert opened_page.status_code == 303
            allowed = {"Authorization": f"token {token}"}
            answer = client.get("/", headers=allowed)
            policy = answer.headers["content-security-policy"]
            assert "frame-ancestors http://localhost:* http://127.0.0.1:*;" in f"{policy};"
            assert "x-frame-options" not in answer.headers
    finally:
        embedded.close()
    assert "closed" in embedded._repr_html_()


def test_a_class_is_refused_by_a_run_without_classes(client):
    body = {"codes": [[0.0, 0.0, 0.0]], "label": 1}
    answer = client.post("/api/runs/wae/decode", json=body)
    assert "not class-conditional" in refused(answer, 422, "bad_argument")
    answer = client.post("/api/runs/wae/sample", json={"label": 1})
    assert "not class-conditional" in refused(answer, 422, "bad_argument")


def test_temperature_scales_the_draws(client, explorers):
    """Codes at temperature T are T times those at 1; of a mixture its deviations are scaled."""
    body = {"count": 2, "seed": 3}
    one, half = (
        torch.tensor(ask(client, "/api/runs/wae/codes", body | {"temperature": t})["codes"])
        for t in (1, 0.5)
    )
    torch.testing.assert_close(half, one / 2)
    cold = explorers["wae"].prior_at("mixture", 0.05)
    assert cold.spread < explorers["wae"].run.mixture().spread
    mixed = ask(client, "/api/runs/wae/codes", body | {"sampler": "mixture"})["codes"]
    expected = explorers["wae"].run.mixture().sample(2, generator(3, "sample"))
    torch.testing.assert_close(torch.tensor(mixed), expected)
    flowed = ask(client, "/api/runs/wae/codes", body | {"sampler": "flow"})["codes"]
    expected = explorers["wae"].run.flow().sample(2, generator(3, "sample"))
    torch.testing.assert_close(torch.tensor(flowed), expected)


def test_the_map_shows_the_codes_and_the_prior(client, explorers):
    """The map's codes are the encoder's, its axes orthonormal, its density highest where draws of
    the prior are densest."""
    explorer = explorers["wae"]
    found = ask(client, "/api/runs/wae/map/principal")
    x = as_floats(explorer.source.test[found["index"]])
    codes = torch.tensor(found["codes"])
    torch.testing.assert_close(codes, explorer.encode(x), atol=1e-5, rtol=1e-4)
    axes, origin = torch.tensor(found["axes"]), torch.tensor(found["origin"])
    torch.testing.assert_close(axes @ axes.T, torch.eye(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(origin, codes.mean(0), atol=1e-5, rtol=0)
    assert found["labels"] == explorer.source.test_labels[found["index"]].tolist()
    # principal: no two other directions hold more of the variance
    within = ((codes - origin) @ axes.T).var(0).sum()
    most = torch.linalg.eigvalsh(torch.cov(codes.T))[-2:].sum()
    torch.testing.assert_close(within, most, rtol=1e-3, atol=0)
    density = tensor(found["density"])[0, 0].float()
    low_a, high_a, low_b, high_b = found["extent"]
    a, b = ((torch.zeros(3) - origin) @ axes.T).tolist()
    column = int((a - low_a) / (high_a - low_a) * 96)
    row = 95 - int((b - low_b) / (high_b - low_b) * 96)
    assert density[row, column] > 0.8 * density.max()


def test_the_worst_plane_is_worse_than_the_principal_one(client, explorers):
    """W_2 between codes and prior along the first axis of the worst plane is at least that along
    the principal axes and a hundred random ones."""
    explorer = explorers["wae"]
    found = ask(client, "/api/runs/wae/map/worst")
    axes = torch.tensor(found["axes"])
    torch.testing.assert_close(axes @ axes.T, torch.eye(2), atol=1e-5, rtol=0)
    drawn = explorer.model.prior.sample(len(explorer.codes), generator(0, "worst plane"))
    others = torch.nn.functional.normalize(torch.randn(100, 3), dim=1)
    rows = torch.cat([axes[:1], explorer.plane("principal").axes, others])
    distances = wasserstein_1d(rows @ explorer.codes.T, rows @ drawn.T)
    assert distances[0] >= distances.max() - 1e-4
    assert distances[0] == pytest.approx(found["distances"][0], rel=1e-4)


def test_directions_are_principal(client, explorers):
    """The directions diagonalise the covariance of the codes, with the squared deviations."""
    found = ask(client, "/api/runs/wae/directions")
    directions = torch.tensor(found["directions"])
    covariance = directions @ torch.cov(explorers["wae"].codes.T) @ directions.T
    expected = torch.tensor(found["deviations"]).square().diag()
    torch.testing.assert_close(covariance, expected, atol=1e-4, rtol=1e-3)
    axes = ask(client, "/api/runs/generator/directions")
    assert axes["deviations"] == pytest.approx([1, 1, 1])


@pytest.mark.parametrize("path", ["linear", "spherical"])
def test_interpolations_are_the_models(client, explorers, path):
    """POST interpolate equals AutoEncoder.interpolate, one end given as pixels."""
    explorer = explorers["wae"]
    a, b = explorer.test([1]), explorer.test([2])
    way = spherical if path == "spherical" else torch.lerp
    with evaluating(explorer.model):
        expected = shown(explorer.model.interpolate(a, b, 7, way))
    own = {"data": Samples.of(b, explorer.kind).data}
    body = {"a": {"index": 1}, "b": own, "frames": 7, "path": path}
    assert torch.equal(tensor(ask(client, "/api/runs/wae/interpolate", body)), expected)


@pytest.mark.parametrize("name", ["wae", "vae", "conditional", "clouds", "table"])
def test_reconstructions_are_the_models(client, explorers, name):
    """POST reconstruct equals AutoEncoder.reconstruct, with the error, the code and the training
    samples that a plain search finds nearest."""
    explorer = explorers[name]
    x = explorer.test([3])
    found = ask(client, f"/api/runs/{name}/reconstruct", {"sample": {"index": 3}})
    with evaluating(explorer.model):
        y = explorer.model.reconstruct(x)
        code = explorer.model.encode(x).mean
    assert torch.equal(tensor(found["reconstruction"]), shown(y))
    torch.testing.assert_close(torch.tensor(found["code"]), code[0], atol=1e-5, rtol=1e-4)
    if x.ndim != 4:
        return
    assert torch.equal(tensor(found["error"]), shown((x - y).abs().mean(1, keepdim=True)))
    assert found["cost"] == pytest.approx(float((x - y).square().sum()), rel=1e-4)
    away = (as_floats(explorer.source.train) - x).square().flatten(1).sum(1)
    expected, index = away.topk(6, largest=False)
    torch.testing.assert_close(torch.tensor(found["near_distance"]), expected, atol=1e-2, rtol=0)
    assert set(found["near_index"]) == set(index.tolist())


def test_typicality_tells_inliers_from_outliers(explorers):
    """Of draws of the prior the shares are uniform; a far code is longer and sparser than all."""
    explorer = explorers["wae"]
    drawn = explorer.model.prior.sample(300, generator(9, "fresh"))
    shares = torch.tensor([explorer.typicality(code)[1:] for code in drawn])
    torch.testing.assert_close(shares.mean(0), torch.full((2,), 0.5), atol=0.06, rtol=0)
    assert explorer.typicality(torch.full((3,), 9.0))[1:] == (1.0, 1.0)
    norm, longer, sparser = explorer.typicality(torch.zeros(3))
    assert (norm, longer) == (0.0, 0.0)
    assert sparser < 0.05


def test_completions_are_the_models(client, explorers):
    """POST complete equals ConditionalWAE.complete; known pixels stay, and seeds differ."""
    explorer = explorers["conditional"]
    x, known = explorer.test([5]), torch.ones(1, 1, 8, 8)
    known[..., 2:5, 3:8] = 0
    mask = base64.b64encode(known.to(torch.uint8).numpy().tobytes()).decode()
    body = {"sample": {"index": 5}, "known": mask, "count": 3, "seed": 2}
    expected = explorer.completer.complete(x, 3, generator(2, "complete"), known=known)[0]
    found = tensor(ask(client, "/api/runs/conditional/complete", body))
    assert torch.equal(found, shown(expected))
    kept = known[0].bool().expand(3, 1, 8, 8)
    assert torch.equal(found[kept], shown(x).expand(3, 1, 8, 8)[kept])
    again = tensor(ask(client, "/api/runs/conditional/complete", body | {"seed": 4}))
    assert not torch.equal(found, again)
    trained = tensor(ask(client, "/api/runs/conditional/mask"))
    assert 0 < trained.float().mean() < 255


def test_uploads_are_read_as_training_images_are(client, explorers):
    """POST image crops, resizes and greys as `monge.data` does; an image of the run's own size
    comes back as it is."""
    pixels = (explorers["wae"].test([7])[0, 0] * 255).round().to(torch.uint8).numpy()
    for suffix, kind in (("PNG", "image/png"), ("BMP", "image/bmp")):
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, suffix)
        answer = client.post(
            "/api/runs/wae/image", content=content.getvalue(), headers={"content-type": kind}
        )
        assert np.array_equal(tensor(answer.json())[0, 0].numpy(), pixels)
    content = io.BytesIO()
    Image.new("RGB", (90, 60), (255, 0, 0)).save(content, "PNG")
    answer = client.post(
        "/api/runs/wae/image", content=content.getvalue(), headers={"content-type": "image/png"}
    )
    assert tensor(answer.json()).unique().tolist() == [76]  # the luma of red


def test_progress_follows_the_directory(client, runs, tmp_path):
    """GET progress has the logged rows and what `monge evaluate` wrote, read anew each time, and
    no folder of this machine."""
    path = runs[0].path
    found = ask(client, "/api/runs/wae/progress")
    rows = runs[0].metrics()
    curve = next(one for one in found["curves"] if one["name"] == "reconstruction")
    assert curve["step"] == [row["step"] for row in rows]
    assert curve["value"] == [row["reconstruction"] for row in rows]
    assert (found["step"], found["newest"], found["figures"]) == (60, "step-60", [])
    figures = {"figures": {"FD": {"value": float("nan"), "deviation": None, "floor": 1.0}}}
    (path / "evaluation.json").write_text(json.dumps({"protocol": {"n": 3}, **figures}))
    found = ask(client, "/api/runs/wae/progress")
    (path / "evaluation.json").unlink()
    assert found["figures"] == [{"name": "FD", "value": None, "deviation": None, "floor": 1.0}]
    table = ask(client, "/api/runs/table/progress")
    assert table["config"]["data"]["name"] == "table.csv"
    assert str(path.parent) not in json.dumps(table)


def test_reload_takes_the_newest_checkpoint(tmp_path):
    """After more training POST reload decodes with the new weights."""
    run = small("wae-mmd", "digits", tmp_path / "run", latent=2)
    explorers = opened([Run(run.path)])
    with serving(explorers) as address, client_of(address) as client:
        code = {"codes": [[0.0, 0.0]]}
        before = ask(client, "/api/runs/run/decode", code)
        longer = read_config(run.path)[0]
        longer = override(longer, "training.steps", 90)
        monge.fit("wae-mmd", None, longer, run.path, resume=True, quiet=True)
        assert ask(client, "/api/runs/run/progress")["newest"] == "step-90"
        assert ask(client, "/api/runs/run/decode", code) == before
        assert ask(client, "/api/runs/run/reload", {})["checkpoint"] == "step-90"
        assert ask(client, "/api/runs/run/decode", code) != before


def test_a_run_that_is_removed_while_it_is_open_is_not_made_again(tmp_path):
    """What is loaded still answers; what its directory held does not, and nothing is written."""
    run = small("wae-mmd", "digits", tmp_path / "run", latent=2)
    with serving(opened([Run(run.path)])) as address, client_of(address) as client:
        shutil.rmtree(run.path)
        drawn = ask(client, "/api/runs/run/sample", {"count": 2, "sampler": "mixture"})
        assert drawn["shape"] == [2, 1, 8, 8]
        gone = client.get("/api/runs/run/progress")
        assert "'run' is not there any more" in refused(gone, 409, "unreadable")
        gone = client.post("/api/runs/run/reload", json={})
        assert "is not a run directory" in refused(gone, 422, "bad_argument")
    assert not run.path.exists()


def test_parameters_of_a_query_are_those_of_its_route(client):
    """A parameter that is misspelt or given twice would otherwise be ignored."""
    for path, name in (
        ("/api/runs?bogus=1", "bogus"),
        ("/api/runs/wae/test?frist=3", "frist"),
        ("/api/runs/wae/test?first=3&first=4", "first"),
        ("/api/runs/wae/map/principal?plane=worst", "plane"),
    ):
        assert repr(name) in refused(client.get(path), 400, "malformed")
    answer = client.post("/api/runs/wae/sample?seed=3", json={"count": 2})
    assert "'seed'" in refused(answer, 400, "malformed")
    assert ask(client, "/api/runs/wae/test?first=3&count=2")["index"] == [3, 4]


def test_answers_do_not_depend_on_the_programs_default_dtype(client):
    """A notebook that has set another one serves what the command line does."""
    code = [[0.5, -1.0, 0.25]]
    asked = {
        "/api/runs": None,
        "/api/runs/wae/sample": {"count": 3, "seed": 3, "temperature": 0.5},
        "/api/runs/wae/codes": {"count": 3, "seed": 3},
        "/api/runs/wae/decode": {"codes": code},
        "/api/runs/wae/reconstruct": {"sample": {"index": 3}},
        "/api/runs/generator/decode": {"codes": code},
        "/api/runs/conditional/complete": {"sample": {"index": 2}, "count": 2, "seed": 1},
    }
    expected = [ask(client, *one) for one in asked.items()]
    torch.set_default_dtype(torch.float64)
    try:
        assert [ask(client, *one) for one in asked.items()] == expected
    finally:
        torch.set_default_dtype(torch.float32)


def test_bad_arguments_are_refused_by_name(client):
    """What does not fit the run is a 422 that names the argument."""
    decode, one = "/api/runs/wae/decode", [0.0, 0.0, 0.0]
    for body, name in (
        ({"codes": [[0.0, 0.0]]}, "codes"),
        ({"codes": [one, [0.0]]}, "codes"),
        ({"codes": []}, "codes"),
        ({"codes": [[0.0, 0.0, 1e5]]}, "codes"),
        ({"codes": [one], "extra": 1}, "extra"),
        ({"codes": [["a", 0, 0]]}, "codes"),
        ({"codes": [["1", 0, 0]]}, "codes"),
        ({"codes": [[True, 0, 0]]}, "codes"),
    ):
        assert name in refused(client.post(decode, json=body), 422, "bad_argument")
    nan = client.post(
        decode, content=b'{"codes": [[NaN, 0, 0]]}', headers={"content-type": "application/json"}
    )
    assert "codes" in refused(nan, 422, "bad_argument")
    for content in (b"", b"{", b'\xff\xfe{"count": 4}', b"[1]"):
        sent = {"content": content, "headers": {"content-type": "application/json"}}
        assert "`body`: " in refused(client.post(decode, **sent), 422, "bad_argument")
    for path, body, name in (
        ("reconstruct", {"sample": {"index": 10_000}}, "index"),
        ("reconstruct", {"sample": {"index": 10**30}}, "index"),
        ("reconstruct", {"sample": {"index": True}}, "index"),
        ("reconstruct", {"sample": {"index": 1.0}}, "index"),
        ("reconstruct", {"sample": {"index": "1"}}, "index"),
        ("reconstruct", {"sample": {}}, "sample"),
        ("reconstruct", {"sample": {"data": "AAAA"}}, "sample"),
        ("reconstruct", {"sample": {"data": "§"}}, "sample"),
        ("complete", {"sample": {"index": 0}}, "run"),
        ("sample", {"count": 101}, "count"),
        ("sample", {"count": True}, "count"),
        ("sample", {"seed": "5"}, "seed"),
        ("sample", {"temperature": 0}, "temperature"),
        ("sample", {"temperature": True}, "temperature"),
        ("interpolate", {"a": {"index": 0}, "b": {"index": 1}, "frames": 1}, "frames"),
    ):
        answer = client.post(f"/api/runs/wae/{path}", json=body)
        assert name in refused(answer, 422, "bad_argument")
    answer = client.post("/api/runs/generator/encode", json={"sample": {"index": 0}})
    assert "has no method `encode`" in refused(answer, 422, "bad_argument")
    mask = base64.b64encode(bytes(64)).decode()
    body = {"sample": {"index": 0}, "known": mask}
    answer = client.post("/api/runs/conditional/complete", json=body)
    assert "nothing" in refused(answer, 422, "bad_argument")
    refused(client.get("/api/runs/nobody/progress"), 404, "not_found")
    refused(client.get("/api/nothing"), 404, "not_found")
    refused(client.get("/api/runs/wae/decode"), 405, "not_allowed")


@pytest.mark.parametrize(
    "path", ["/", "/static/app.js", "/api/runs", "/api/runs/wae/test?count=2", "/api/openapi.json"]
)
def test_head_is_answered_as_get_without_a_body(client, path):
    """RFC 9110, section 9.3.2."""
    whole, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    names = {"content-type", "content-length", "content-security-policy"}
    assert {n: head.headers[n] for n in names} == {n: whole.headers[n] for n in names}
    assert client.get("/api/runs").status_code == 200  # on the same connection


def test_head_is_refused_where_get_is(client):
    assert client.head("/api/runs/nobody/progress").status_code == 404
    assert client.head("/", headers={"authorization": "token of nobody"}).status_code == 403


@pytest.mark.parametrize(
    ("path", "allowed"), [("/api/runs", "GET, HEAD"), ("/api/runs/wae/decode", "POST")]
)
def test_other_methods_are_told_which_are_allowed(client, path, allowed):
    """RFC 9110, section 15.5.6; bodies are not waited for."""
    for method in ("OPTIONS", "PUT", "PATCH", "DELETE", "GET" if allowed == "POST" else "POST"):
        answer = client.request(method, path, json={"codes": []})
        refused(answer, 405, "not_allowed")
        assert answer.headers["allow"] == allowed
    answer = client.put(path, content=b"x" * 100_000)
    refused(answer, 405, "not_allowed")


def test_strangers_are_refused(client):
    """Another Host, as after DNS rebinding, or another Origin gets nothing; every reply forbids
    the page whatever is not the server's own."""
    for headers, error in (
        ({"host": "evil.example"}, "wrong_host"),
        ({"host": "127.0.0.1"}, "wrong_host"),
        ({"origin": "http://evil.example"}, "wrong_origin"),
        ({"origin": "null"}, "wrong_origin"),
        ({"sec-fetch-site": "cross-site"}, "wrong_origin"),
    ):
        refused(client.get("/api/runs", headers=headers), 403, error)
    plain = client.post("/api/runs/wae/decode", content=b"{}")
    refused(plain, 415, "wrong_type")
    for path in ("/", "/api/runs", "/api/nothing"):
        policy = client.get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy


def test_the_newest_question_of_a_view_wins():
    """Of what waits for one view the newest alone is computed; other views keep their places, and
    a full queue refuses."""
    worker, started, go_on = Worker(most=2), threading.Event(), threading.Event()
    done: list[str] = []

    def block():
        started.set()
        go_on.wait(10)

    running = worker.submit("map", block)
    started.wait(10)
    first = worker.submit("map", lambda: done.append("first"))
    other = worker.submit("sample", lambda: done.append("other"))
    newest = worker.submit("map", lambda: done.append("newest"))
    with pytest.raises(Full):
        worker.submit("clouds", lambda: None)
    go_on.set()
    assert [running.result(10), newest.result(10), other.result(10)] == [None] * 3
    assert first.cancelled()
    assert done == ["newest", "other"]


def test_a_superseded_request_is_told_so(explorers):
    """Over HTTP the older of two waiting requests of one view is a 409."""
    shield = site(explorers, ["127.0.0.1:1"], Access(TOKEN, 1))
    started, go_on = threading.Event(), threading.Event()

    class Request:
        app = shield.app

    def block():
        started.set()
        go_on.wait(10)

    async def three():
        submit = [Submit(Request(), explorers["wae"], "decode") for _ in range(3)]
        tasks = [asyncio.create_task(submit[0](block))]
        await asyncio.to_thread(started.wait, 10)
        tasks += [asyncio.create_task(one(lambda: 1)) for one in submit[1:]]
        await asyncio.sleep(0.05)
        go_on.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, second, third = asyncio.run(three())
    assert (first, third) == (None, 1)
    assert isinstance(second, Refusal)
    assert (second.status_code, second.error) == (409, "superseded")


def test_the_command_line_says_what_is_wrong(runs, capsys, monkeypatch):
    """A bad host, a port in use and a missing package are one line and exit code 2."""

    def failed(*argv) -> str:
        monkeypatch.setattr(sys, "argv", ["monge", *map(str, argv)])
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code == 2
        err = capsys.readouterr().err
        assert err.startswith("monge: error: ")
        assert err.count("\n") == 1
        return err

    path = runs[0].path
    assert "`runs`" in failed("explore")
    assert "`run`" in failed("explore", path / "nowhere")
    assert "`host`" in failed("explore", path, "--host", "0.0.0.0")
    with bound("127.0.0.1", 0) as taken:
        assert "`port`" in failed("explore", path, "--port", taken.getsockname()[1])
    for module in [name for name in sys.modules if name.startswith("monge.show.explore.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert "pip install 'monge[explore]'" in failed("explore", path)


def test_the_command_serves_until_it_is_interrupted(runs):
    """`monge explore` prints its address, answers there, and ends with 130 on ctrl-c."""
    command = [sys.executable, "-m", "monge", "explore", str(runs[0].path), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"(http://127.0.0.1:\d+/)\?token=(\S{40,}) ", line)
        assert found, line
        headers = {"Authorization": f"token {found[2]}"}
        with Client(base_url=found[1], headers=headers) as client:
            assert ask(client, "/api/runs")[0]["id"] == "wae"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
