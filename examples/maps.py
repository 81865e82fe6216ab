"""Transport maps: two moons moved onto three blobs, and the colours of two pictures exchanged.

python examples/maps.py
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from sklearn.datasets import load_sample_images, make_blobs, make_moons

from monge.maps import EntropicMap, ExactMap, LinearMap, SlicedMap, transfer_colours

OUT = Path(__file__).parents[1] / "docs" / "maps"
MAPS = (ExactMap, EntropicMap, LinearMap, SlicedMap)
METHODS = (LinearMap, SlicedMap, EntropicMap, ExactMap)
SIZE = (320, 213)


def moons() -> None:
    centers = [[3, 0], [5, 2], [4, -2]]
    x, _ = make_moons(400, noise=0.05, random_state=0)
    y, _ = make_blobs(300, centers=centers, cluster_std=0.3, random_state=0)
    new, _ = make_moons(300, noise=0.05, random_state=1)
    figure = Figure(figsize=(12, 3), layout="constrained")
    for axes, make in zip(figure.subplots(1, 4, sharey=True), MAPS):
        moved = make().fit(x, y).transform(new)
        axes.scatter(*y.T, s=6, color="0.8")
        axes.scatter(*new.T, s=6, color="tab:blue")
        axes.scatter(*moved.T, s=6, color="tab:red")
        for start, end in zip(new[:10], moved[:10]):
            axes.plot(*zip(start, end), color="0.4", linewidth=0.6)
        axes.set_title(make.__name__)
        axes.set_aspect("equal")
        axes.set_xticks([])
        axes.set_yticks([])
    figure.savefig(OUT / "moons.png", dpi=90)


def colours() -> None:
    pictures = load_sample_images().images
    width, height = SIZE
    sheet = Image.new("RGB", (5 * width, 2 * height))
    for row, (image, like) in enumerate((pictures, pictures[::-1])):
        made = [image, *(transfer_colours(image, like, make()) for make in METHODS)]
        for column, pixels in enumerate(made):
            small = Image.fromarray(np.ascontiguousarray(pixels)).resize(SIZE)
            sheet.paste(small, (column * width, row * height))
    sheet.save(OUT / "colours.jpg", quality=85)


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    moons()
    colours()
