"""The picture at the top of the README: test digits beside samples that benchmarks/generators.py
drew.

    python benchmarks/headline.py --data-dir DIR
"""

import argparse
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from monge import DataConfig
from monge.data import load
from monge.show.pictures import pictures_of, spread_over

ROOT = Path(__file__).parents[1]
DRAWN = ROOT / "docs" / "generators"
ROWS, GAP, HEAD = 6, 48, 56


def beside(panels: dict[str, Image.Image]) -> Image.Image:
    """The panels under their names, on white."""
    widths = [panel.width for panel in panels.values()]
    height = max(panel.height for panel in panels.values())
    canvas = Image.new("RGB", (sum(widths) + GAP * (len(widths) - 1), HEAD + height), "white")
    draw, font, left = ImageDraw.Draw(canvas), ImageFont.load_default(30), 0
    for name, panel in panels.items():
        draw.text((left + panel.width // 2, HEAD // 2), name, "black", font, anchor="mm")
        canvas.paste(panel.convert("RGB"), (left, HEAD))
        left += panel.width + GAP
    return canvas


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", required=True)
    source = load(DataConfig("mnist", parser.parse_args().data_dir))
    test = source.test[spread_over(len(source.test), 64)]
    panels = {
        "test digits": pictures_of(source.kind).samples(test.float() / 255),
        "alpha-gan": Image.open(DRAWN / "mnist-alpha-gan-labels.png"),
        "wae-gan": Image.open(DRAWN / "mnist-wae-gan.png"),
    }
    picture = beside(panels)
    shown = picture.crop((0, 0, picture.width, HEAD + 90 * ROWS - 6))
    shown.save(DRAWN / "headline.png", optimize=True)


if __name__ == "__main__":
    main()
