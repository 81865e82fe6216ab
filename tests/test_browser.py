"""The page in a browser: each view's action is done, and the pixels become what Python says."""

import base64
import contextlib
import io
import json
import shutil

import numpy as np
import pytest
import torch
from explored import TOKEN, serving, small
from PIL import Image

from monge.models import evaluating
from monge.runs import Run
from monge.show.explore.server import opened
from monge.show.explore.uploads import UploadDecoder
from monge.show.rendering import rotation

sync_api = pytest.importorskip("playwright.sync_api")

pytestmark = pytest.mark.browser
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address):
    """A page that may ask the server alone, and must not complain."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
    strangers: list[str] = []
    page.on(
        "request",
        lambda request: (
            request.url.startswith((address, "blob:")) or strangers.append(request.url)
        ),
    )
    yield page
    page.close()
    assert complaints == []
    assert strangers == []


def show(page, address: str, run: str, view: str) -> None:
    page.goto(f"{address}/?token={TOKEN}#{run}/{view}")
    page.wait_for_selector("body[data-ready]")
    assert page.url == f"{address}/#{run}/{view}"
    assert page.inner_text("h1").lower() == view


def pixels(page, selector: str) -> np.ndarray:
    """What a canvas holds, (h, w, 4)."""
    found = page.evaluate(
        """selector => {
          const canvas = document.querySelector(selector);
          const { width, height } = canvas;
          const data = canvas.getContext("2d").getImageData(0, 0, width, height).data;
          let text = "";
          for (const v of data) text += String.fromCharCode(v);
          return [width, height, btoa(text)];
        }""",
        selector,
    )
    width, height, data = found
    return np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)


def is_image(page, selector: str, image: torch.Tensor) -> bool:
    """Whether a canvas shows a grey image (1, 1, h, w) or (1, h, w), pixel by pixel."""
    seen = pixels(page, selector)
    expected = (image.clamp(0, 1) * 255).round().to(torch.uint8).reshape(image.shape[-2:]).numpy()
    alike = seen.shape[:2] == expected.shape and (seen[..., 3] == 255).all()
    # arithmetic in float64 in the page may move a rounding by one step
    return bool(alike) and all(
        np.abs(seen[..., c].astype(int) - expected).max() <= 1 for c in range(3)
    )


def data(page, selector: str, name: str):
    return json.loads(page.get_attribute(selector, f"data-{name}"))


def differ(one: np.ndarray, two: np.ndarray) -> bool:
    """Whether two canvases differ by more than roundings do."""
    return int(np.abs(one.astype(int) - two).max()) > 3


def waits(page, condition: str, argument=None) -> None:
    page.wait_for_function(condition, arg=argument, timeout=20_000)


def changes(page, selector: str, name: str, act) -> None:
    """Acts, and waits until a data attribute is another one."""
    before = page.get_attribute(selector, f"data-{name}")
    act()
    waits(
        page,
        "([selector, name, old]) => document.querySelector(selector).dataset[name] !== old",
        [selector, name, before],
    )


def test_a_click_on_the_map_decodes_the_point(page, address, explorers):
    """The image is G at the code of the clicked point, found independently from the plane."""
    explorer = explorers["wae"]
    show(page, address, "wae", "map")
    page.wait_for_selector("#decoded[data-code]")
    image = pixels(page, "#decoded")
    left, right, low, high = data(page, "#plane", "extent")
    box = page.locator("#plane").bounding_box()
    # a corner, where no code is near: the point is in the plane
    x, y = box["x"] + 0.05 * box["width"], box["y"] + 0.1 * box["height"]
    changes(page, "#decoded", "code", lambda: page.mouse.click(x, y))
    code = torch.tensor(data(page, "#decoded", "code"))
    plane = explorer.plane("principal")
    point = torch.tensor([left + 0.05 * (right - left), high - 0.1 * (high - low)])
    expected = plane.origin + point @ plane.axes
    step = (right - left) / box["width"]
    torch.testing.assert_close(code, expected, atol=2 * step, rtol=0)
    assert is_image(page, "#decoded", explorer.decode(code[None]))
    assert differ(image, pixels(page, "#decoded"))


def test_a_drag_on_the_map_moves_through_latent_space(page, address, explorers):
    """While the mouse is down the image follows, and is that of the newest point."""
    explorer = explorers["wae"]
    show(page, address, "wae", "map")
    page.wait_for_selector("#decoded[data-code]")
    box = page.locator("#plane").bounding_box()
    page.mouse.move(box["x"] + 0.04 * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.down()
    for share in (0.2, 0.4, 0.6, 0.96):
        page.mouse.move(box["x"] + 0.04 * box["width"], box["y"] + share * box["height"], steps=4)
    page.mouse.up()
    plane = explorer.plane("principal")
    left, right, low, high = data(page, "#plane", "extent")
    point = torch.tensor([left + 0.04 * (right - left), high - 0.96 * (high - low)])
    waits(
        page,
        """([b, axis, origin, far]) => {
          const code = JSON.parse(document.querySelector("#decoded").dataset.code);
          const at = code.reduce((sum, z, i) => sum + (z - origin[i]) * axis[i], 0);
          return Math.abs(at - b) < far;
        }""",
        [
            float(point[1]),
            plane.axes[1].tolist(),
            plane.origin.tolist(),
            3 * (high - low) / box["height"],
        ],
    )
    code = torch.tensor([data(page, "#decoded", "code")])
    assert is_image(page, "#decoded", explorer.decode(code))


def test_hovering_over_a_code_shows_its_image(page, address, explorers):
    """The test sample under the mouse is shown, and a drag from it starts at its code."""
    explorer = explorers["wae"]
    show(page, address, "wae", "map")
    page.wait_for_selector("#plane[data-extent]")
    left, right, low, high = data(page, "#plane", "extent")
    found = explorer.map("principal")
    places = (found.codes - found.plane.origin) @ found.plane.axes.T
    lonely = int(torch.cdist(places, places).kthvalue(2, dim=1).values.argmax())
    a, b = places[lonely].tolist()
    box = page.locator("#plane").bounding_box()
    x = box["x"] + (a - left) / (right - left) * box["width"]
    y = box["y"] + (high - b) / (high - low) * box["height"]
    page.mouse.move(x, y)
    index = int(found.index[lonely])
    page.wait_for_selector(f"#hovered[data-index='{index}']")
    assert is_image(page, "#hovered", explorer.test([index]))
    changes(page, "#decoded", "code", lambda: page.mouse.click(x, y))
    code = torch.tensor(data(page, "#decoded", "code"))
    step = (right - left) / box["width"]
    torch.testing.assert_close(code, found.codes[lonely], atol=2 * step, rtol=0)


def test_samples_follow_seed_and_temperature(page, address, explorers):
    """Every tile is the sample that Python draws, before and after the seed is changed."""
    explorer = explorers["wae"]
    show(page, address, "wae", "sample")
    for seed, temperature in ((0, 1.0), (5, 1.0), (5, 0.5)):
        if seed:
            page.fill("#seed", str(seed))
            page.dispatch_event("#seed", "change")
        if temperature != 1:
            page.locator("#temperature").evaluate(
                "(slider, t) => { slider.value = t; slider.dispatchEvent(new Event('input')); }",
                temperature,
            )
        body = {"count": 64, "seed": seed, "sampler": "prior", "temperature": temperature}
        waits(
            page,
            "body => document.querySelector('#samples').dataset.drawn === JSON.stringify(body)",
            json.loads(json.dumps(body).replace("1.0", "1")),
        )
        drawn = explorer.sample(64, seed, "prior", temperature)
        for i in (0, 1, 63):
            assert is_image(page, f"#samples canvas:nth-child({i + 1})", drawn[i])


def test_a_slider_moves_the_image(page, address, explorers):
    """A slider moves the code along its principal direction by its deviations, and the image is
    G there; the sliders start at the code of the chosen sample."""
    explorer = explorers["wae"]
    show(page, address, "wae", "traverse")
    page.wait_for_selector("#traversed[data-code]")
    start = explorer.encode(explorer.test([0]))[0]
    torch.testing.assert_close(
        torch.tensor(data(page, "#traversed", "code")), start, atol=1e-4, rtol=1e-4
    )
    with evaluating(explorer.model):
        assert is_image(page, "#traversed", explorer.model.reconstruct(explorer.test([0])))
    mean, directions, deviations = explorer.directions
    image = pixels(page, "#traversed")
    moved = "slider => { slider.value = 2.5; slider.dispatchEvent(new Event('input')); }"
    slider = page.locator("#direction-1")
    changes(page, "#traversed", "code", lambda: slider.evaluate(moved))
    place = (start - mean) @ directions[1] / deviations[1]
    expected = start + (2.5 - place) * deviations[1] * directions[1]
    code = torch.tensor(data(page, "#traversed", "code"))
    torch.testing.assert_close(code, expected, atol=1e-4, rtol=1e-4)
    assert is_image(page, "#traversed", explorer.decode(code[None]))
    assert differ(image, pixels(page, "#traversed"))


def test_the_scrubber_goes_from_one_sample_to_the_other(page, address, explorers):
    """The strip's frames are the model's interpolation, and the scrubber shows the frame it
    is at, straight and on the great circle."""
    explorer = explorers["wae"]
    show(page, address, "wae", "interpolate")
    page.wait_for_selector("#strip[data-shown]")
    for path in ("linear", "spherical"):
        page.click(f"button[data-value='{path}']")
        waits(
            page,
            "path => JSON.parse(document.querySelector('#strip').dataset.shown).path === path",
            path,
        )
        frames = explorer.interpolate(explorer.test([0]), explorer.test([1]), 24, path)
        for i in (0, 11, 23):
            assert is_image(page, f"#strip canvas:nth-child({i + 1})", frames[i])
            page.locator("#scrubber").evaluate(
                "(slider, i) => { slider.value = i; slider.dispatchEvent(new Event('input')); }", i
            )
            assert is_image(page, "#frame", frames[i])


def test_an_upload_is_reconstructed(page, address, explorers):
    """An image of one's own comes back as the model reconstructs it, inverted on demand."""
    explorer = explorers["wae"]
    show(page, address, "wae", "reconstruct")
    page.wait_for_selector("[data-shown]")
    own = np.zeros((40, 40), np.uint8)
    own[5:35, 15:25] = 230
    content = io.BytesIO()
    Image.fromarray(own).save(content, "PNG")
    file = {"name": "own.png", "mimeType": "image/png", "buffer": content.getvalue()}
    page.set_input_files("#file-sample", file)
    with contextlib.closing(UploadDecoder()) as decoder:
        x = explorer.read_image(content.getvalue(), "image/png", decoder)
    waits(page, "() => document.querySelector('[data-shown]').dataset.shown.includes('data')")
    for image in (x, 1 - x):
        with evaluating(explorer.model):
            y = explorer.model.reconstruct(image)
        assert is_image(page, "#sample", image)
        assert is_image(page, "#reconstruction", y)
        assert pixels(page, "#error")[..., 0].std() > 0
        if image is x:
            before = page.get_attribute("[data-shown]", "data-shown")
            page.click("text=invert")
            waits(
                page, "old => document.querySelector('[data-shown]').dataset.shown !== old", before
            )
    assert "norm of the code" in page.inner_text("#facts")
    assert page.locator("#near canvas").count() == 6


def test_a_brushed_mask_is_completed(page, address, explorers):
    """A stroke hides what is under it, and the completions are the model's for that mask."""
    explorer = explorers["conditional"]
    show(page, address, "conditional", "complete")
    page.wait_for_selector("#completions[data-shown]")
    page.click("#whole")
    image = pixels(page, "#completions canvas")
    box = page.locator("#brush").bounding_box()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.3 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.8 * box["height"], steps=8)
    changes(page, "#completions", "shown", page.mouse.up)
    sent = base64.b64decode(data(page, "#completions", "shown")["known"])
    known = torch.tensor(list(sent)).view(1, 1, 8, 8).float()
    # the stroke goes down the middle
    assert known[0, 0, 3:6, 3:5].max() == 0
    assert known[0, 0, :, [0, 7]].min() == 1
    completed = explorer.complete(explorer.test([0]), known, 8, 0)
    for i in (0, 7):
        assert is_image(page, f"#completions canvas:nth-child({i + 1})", completed[i])
    first, last = (pixels(page, f"#completions canvas:nth-child({i})") for i in (1, 8))
    assert differ(first, last)
    assert differ(first, image)


def test_a_drag_turns_the_cloud(page, address, explorers):
    """The points lie where the rotation of `monge.show.rendering` puts them, before and after a
    drag, which turns by its length."""
    explorer = explorers["clouds"]
    cloud = explorer.sample(9, 0, "prior", 1.0)[0].numpy()
    show(page, address, "clouds", "clouds")
    page.wait_for_selector("#cloud[data-turn]")
    box = page.locator("#cloud").bounding_box()

    def check() -> float:
        turn = data(page, "#cloud", "turn")
        x, y, _ = rotation(turn["yaw"], turn["pitch"]) @ cloud.T
        seen = pixels(page, "#cloud")[..., 3]
        side = len(seen)
        column, row = (0.5 + 0.47 * x) * side, (0.5 - 0.47 * y) * side
        inside = (column > 1) & (column < side - 1) & (row > 1) & (row < side - 1)
        assert inside.sum() > 20
        assert (seen[row[inside].astype(int), column[inside].astype(int)] > 0).all()
        # and nowhere else: all ink is within a disc's reach of a point
        ink_row, ink_column = np.nonzero(seen)
        away = np.hypot(ink_row[:, None] - row, ink_column[:, None] - column).min(1)
        assert away.max() < 0.05 * side
        return turn["yaw"]

    before = check()
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 160, box["y"] + 100, steps=5)
    page.mouse.up()
    waits(
        page,
        "old => JSON.parse(document.querySelector('#cloud').dataset.turn).yaw !== old",
        before,
    )
    page.wait_for_timeout(100)
    assert check() == pytest.approx(before + 60 / 120, abs=0.02)


def test_runs_are_compared_on_one_code_and_one_image(page, address, explorers):
    """Each row is its run's decoding of the same codes, or reconstruction of the same sample."""
    show(page, address, "wae", "compare")
    page.wait_for_selector("[data-run='vae']")
    codes = explorers["wae"].draw(10, 0, "prior", 1.0)
    for name in ("wae", "vae", "generator"):
        decoded = explorers[name].decode(codes)
        assert is_image(page, f"[data-run='{name}'] canvas:nth-child(3)", decoded[2])
    assert page.locator("[data-run='conditional']").count() == 0
    page.click("button[data-value='sample']")
    waits(page, "() => document.querySelector('#lines').dataset.shown.includes('index')")
    for name in ("wae", "vae"):
        explorer = explorers[name]
        with evaluating(explorer.model):
            y = explorer.model.reconstruct(explorer.test([0]))
        assert is_image(page, f"[data-run='{name}'] canvas", y)
    page.uncheck("input[value='vae']")
    waits(page, "() => !document.querySelector(\"[data-run='vae']\")")


def test_the_class_that_is_chosen_is_drawn_and_decoded(browser, tmp_path):
    """Classes come as they are drawn until one is chosen, which other views keep; the code of a
    sample that is clicked is decoded to its own class."""
    run = small("wae-mmd", "digits", tmp_path / "run", latent=3, condition="labels")
    explorers = opened([Run(run.path)])
    explorer, page, complaints = explorers["run"], browser.new_page(), []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    with serving(explorers) as address:
        show(page, address, "run", "sample")
        page.wait_for_selector("#samples[data-drawn]")
        labels = explorer.labels(64, 0, None)
        drawn = explorer.sample(64, 0, "prior", 1.0)
        assert is_image(page, "#samples canvas:nth-child(5)", drawn[4])
        page.click("#samples canvas:nth-child(5)")
        page.wait_for_selector("#traversed[data-code]")
        code = torch.tensor([data(page, "#traversed", "code")])
        assert is_image(page, "#traversed", explorer.decode(code, None, int(labels[4])))
        page.select_option("#class", label="7")
        page.wait_for_selector("#traversed[data-code]")
        waits(page, "() => document.querySelector('#class').value === '7'")
        page.wait_for_selector("#traversed[data-code]")
        assert is_image(page, "#traversed", explorer.decode(code, None, 7))
        page.goto(f"{address}/#run/sample")
        page.wait_for_selector("#samples[data-drawn*='label']")
        drawn = explorer.sample(64, 0, "prior", 1.0, 7)
        assert is_image(page, "#samples canvas:nth-child(5)", drawn[4])
    page.close()
    assert complaints == []


def test_a_view_is_saved_as_a_picture_and_as_an_array(page, address, explorers, tmp_path):
    """The .npy file holds the samples that are shown, in [0, 1], and the picture their tiles."""
    explorer = explorers["wae"]
    show(page, address, "wae", "sample")
    page.wait_for_selector("#samples[data-drawn]")
    for button, name in (("#save-array", "wae-sample.npy"), ("#save-picture", "wae-sample.png")):
        with page.expect_download() as download:
            page.click(button)
        assert download.value.suggested_filename == name
        download.value.save_as(tmp_path / name)
    drawn = explorer.sample(64, 0, "prior", 1.0)
    saved = np.load(tmp_path / "wae-sample.npy")
    assert (saved.shape, saved.dtype) == ((64, 1, 8, 8), np.float32)
    assert np.abs(saved - drawn.clamp(0, 1).numpy()).max() <= 0.51 / 255
    with Image.open(tmp_path / "wae-sample.png") as picture:
        side = (picture.width + 4) // 8
        tile = picture.convert("L").crop((side, 0, 2 * side - 4, side - 4)).resize((8, 8), 0)
    assert np.abs(np.asarray(tile, float) - 255 * drawn[1, 0].clamp(0, 1).numpy()).max() <= 1.01
    show(page, address, "wae", "map")
    page.wait_for_selector("#decoded[data-code]")
    with page.expect_download() as download:
        page.click("#save-picture")
    assert download.value.suggested_filename == "wae-map.png"


def test_a_link_restores_what_is_shown(page, address, explorers):
    """Its address has the state of the run, which is taken once; a damaged one is refused."""
    show(page, address, "wae", "traverse")
    page.wait_for_selector("#traversed[data-code]")
    moved = "slider => { slider.value = 2.5; slider.dispatchEvent(new Event('input')); }"
    act = lambda: page.locator("#direction-1").evaluate(moved)  # noqa: E731
    changes(page, "#traversed", "code", act)
    code = data(page, "#traversed", "code")
    page.click("#share")
    link = page.get_attribute("#share", "data-link")
    page.goto("about:blank")
    page.goto(link)
    page.wait_for_selector("#traversed[data-code]")
    assert page.url == f"{address}/#wae/traverse"
    assert data(page, "#traversed", "code") == pytest.approx(code, abs=1e-4)
    page.goto("about:blank")
    page.goto(f"{address}/#wae/sample/%7B")
    page.wait_for_selector("#samples[data-drawn]")
    assert "The link is damaged" in page.inner_text("#status")


def test_classes_are_highlighted_by_name(page, address):
    """Ten classes are in colour; one that is pressed off is grey, and the plane changes."""
    show(page, address, "wae", "map")
    page.wait_for_selector("#decoded[data-code]")
    pressed = page.locator("#legend button[aria-pressed='true']")
    assert pressed.all_inner_texts() == list("0123456789")
    before = pixels(page, "#plane")
    page.click("#legend button:has-text('3')")
    assert pressed.count() == 9
    assert differ(before, pixels(page, "#plane"))


def test_the_tour_goes_through_the_views_and_ends(page, address):
    show(page, address, "wae", "map")
    page.click("#start-tour")
    seen = set()
    while page.locator("#tour").count():
        page.wait_for_selector(".pointed")
        seen.add(page.inner_text("h1").lower())
        page.keyboard.press("Enter")
        page.wait_for_timeout(150)
    assert {"map", "sample", "traverse", "interpolate", "reconstruct", "run"} == seen
    assert page.locator(".pointed").count() == 0
    page.click("#start-tour")
    page.keyboard.press("Escape")
    assert page.locator("#tour").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_asks_for_nothing_fits_a_phone_and_highlights_classes(
    browser, explorers, scheme
):
    """A class of its map is pressed on and off, with the mouse and the keyboard; no page is wider
    than the screen, and letters stand out from the paper."""
    page = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme=scheme)
    complaints: list[str] = []
    strangers: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("request", lambda request: strangers.append(request.url))
    page.goto(explorers["wae"].run.report.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    button, mark = page.locator(".legend button").nth(3), page.locator(".mark[data-label='3']")
    for act in (button.click, lambda: button.press("Enter")):
        act()
        expected = "false" if act == button.click else "true"
        assert button.get_attribute("aria-pressed") == expected
        assert ("on" in mark.get_attribute("class").split()) == (expected == "true")
    assert mark.evaluate("mark => mark.style.color") != ""
    page.locator(".legend button").nth(4).focus()
    page.keyboard.press("Shift+Tab")
    assert "look" in mark.get_attribute("class").split()
    paper, ink = page.evaluate(
        "() => [getComputedStyle(document.body).backgroundColor, "
        "getComputedStyle(document.body).color]"
    )
    one, two = (sum(map(int, text[4:-1].split(", "))) for text in (paper, ink))
    assert abs(one - two) > 400
    assert (one > two) == (scheme == "light")
    assert complaints == []
    assert [url for url in strangers if not url.startswith(("file:", "data:"))] == []
    page.close()


def test_a_notebook_shows_the_page_in_a_frame(browser, explorers):
    """A page of another port of this machine may frame it, and its token opens it there."""
    import functools
    import http.server
    import threading

    embedded = explorers["wae"].run.explore(height=600)
    content = f"<!doctype html><body>{embedded._repr_html_()}</body>".encode()

    class Notebook(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(content if self.path == "/" else b"")

        log_message = functools.partialmethod(lambda *_: None)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Notebook)
    threading.Thread(target=server.serve_forever).start()
    try:
        for host in ("127.0.0.1", "localhost"):
            page = browser.new_page()
            asked: list[str] = []
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            page.goto(f"http://{host}:{server.server_port}/")
            frame = page.frame_locator("iframe")
            frame.locator("#decoded[data-code]").wait_for(timeout=60_000)
            assert frame.locator("h1").inner_text() == "Map"
            # the other name, even for a moment, may end in a page without token
            assert [url for url in asked if not url.startswith(f"http://{host}:")] == []
            page.close()
    finally:
        server.shutdown()
        server.server_close()
        embedded.close()


def test_the_run_view_follows_training(browser, tmp_path):
    """New rows and an evaluation appear without a reload; a newer checkpoint can be loaded, and
    the image changes to what the new weights make."""
    import monge
    from monge.config import override, read_config

    run = small("wae-mmd", "digits", tmp_path / "run", latent=3)
    explorers = opened([Run(run.path)])
    page = browser.new_page()
    with serving(explorers) as address:
        show(page, address, "run", "run")
        page.wait_for_selector("[data-step='60']")
        curve = pixels(page, "#curves canvas")
        longer = override(read_config(run.path)[0], "training.steps", 90)
        monge.fit("wae-mmd", None, longer, run.path, resume=True, quiet=True)
        figures = {"FD": {"value": 3.25, "deviation": None, "floor": 1.5}}
        (run.path / "evaluation.json").write_text(
            json.dumps({"protocol": {"n samples": 7}, "figures": figures})
        )
        page.wait_for_selector("[data-step='90']")
        assert not np.array_equal(pixels(page, "#curves canvas"), curve)
        page.wait_for_selector("#evaluation td:has-text('3.25')")
        page.click("#reload")
        waits(page, "() => document.querySelector('#about').textContent.includes('step-90')")
        page.goto(f"{address}/#run/traverse")
        page.wait_for_selector("#traversed[data-code]")
        explorer, code = explorers["run"], [data(page, "#traversed", "code")]
        assert explorer.checkpoint == "step-90"
        assert is_image(page, "#traversed", explorer.decode(torch.tensor(code)))
    page.close()


def test_stale_answers_are_dropped(page, address, explorers):
    """Of a hundred moves of a slider at once few are asked for, and the last is shown."""
    show(page, address, "wae", "traverse")
    page.wait_for_selector("#traversed[data-code]")
    asked: list[str] = []
    page.on("request", lambda request: "decode" in request.url and asked.append(request.url))
    page.locator("#direction-0").evaluate(
        """slider => {
          for (let i = 0; i <= 100; i++) {
            slider.value = i / 50;
            slider.dispatchEvent(new Event("input"));
          }
        }"""
    )
    mean, directions, deviations = explorers["wae"].directions
    waits(
        page,
        """([mean, direction, deviation]) => {
          const code = JSON.parse(document.querySelector("#traversed").dataset.code);
          const at = code.reduce((sum, z, i) => sum + (z - mean[i]) * direction[i], 0) / deviation;
          return Math.abs(at - 2) < 1e-4;
        }""",
        [mean.tolist(), directions[0].tolist(), float(deviations[0])],
    )
    assert len(asked) <= 3


def test_problems_are_told_on_the_page(browser, address):
    """What the server refuses is shown in words."""
    page = browser.new_page()
    show(page, address, "wae", "reconstruct")
    page.wait_for_selector("[data-shown]")
    file = {"name": "own.png", "mimeType": "image/png", "buffer": b"no image"}
    page.set_input_files("#file-sample", file)
    page.wait_for_selector("#status.problem:has-text('not a readable image')")
    page.close()


def test_every_view_of_every_run_opens(page, address, explorers):
    """No view of any kind of run leaves an error on the page or in the console."""
    for name, explorer in explorers.items():
        for view in explorer.views:
            show(page, address, name, view)
            page.wait_for_timeout(250)
            assert page.inner_text("#status") == ""


def test_the_printed_address_is_opened_from_a_page_of_another_site(browser, address):
    """A notebook on another host shows the address as a link. Without the token there is no
    page."""
    with browser.new_context() as context:
        page = context.new_page()
        link = f'<a href="{address}/?token={TOKEN}">explore</a>'
        page.route(
            "http://elsewhere.test/",
            lambda route: route.fulfill(body=link, content_type="text/html"),
        )
        page.goto("http://elsewhere.test/")
        page.click("a")
        page.wait_for_selector("body[data-ready]")
        assert TOKEN not in page.url
        (cookie,) = context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(address)
        assert "needs a token" in page.inner_text("body")
