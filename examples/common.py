"""What the examples share: a run trained once, and figures saved."""

import io
from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL import Image

import monge
from monge.config import override
from monge.data import as_floats
from monge.evaluation.samplers import draw_codes
from monge.runs import Run

ROOT = Path(__file__).parents[1]


def trained(recipe: str, data: str, name: str, **settings) -> Run:
    """The run `name`, trained if it is not there; `a__b=c` sets the setting a.b."""
    config = monge.Config.of(recipe, data=data)
    for path, value in settings.items():
        config = override(config, path.replace("__", "."), value)
    out = ROOT / "runs" / "gallery" / name
    run = monge.fit(recipe, config=config, out=out, resume=True, quiet=True)
    print(name, {k: round(v, 4) for k, v in run.metrics()[-1].items()}, flush=True)
    return run


def codes_by_class(axes, run: Run, count: int = 5000):
    """Scatters draws of Q_Z on the test part, coloured by class."""
    codes = draw_codes(run.model, run.source.test[:count])
    labels = run.source.test_labels[:count]
    axes.scatter(*codes.T, s=2, c=labels, cmap="tab10", linewidths=0)
    axes.set_aspect("equal")


def images_of_test(run: Run, count: int = 10_000) -> torch.Tensor:
    """Test images in [0, 1], flat."""
    return as_floats(run.source.test[:count]).flatten(1)


def save(figure: Figure, name: str) -> None:
    """To docs/gallery/NAME.png."""
    figure.tight_layout()
    path = ROOT / "docs" / "gallery" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    figure.savefig(content, dpi=90)
    Image.open(content).convert("RGB").quantize(128).save(path, optimize=True)
    print(path)
