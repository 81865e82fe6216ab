"""How many random directions: for codes of 8 dimensions, and for images of 784.

MONGE_DATA=DIR python examples/slices.py
"""

import torch
from common import images_of_test, save, trained
from matplotlib.figure import Figure

from monge.data import as_floats
from monge.draws import generator
from monge.evaluation.samplers import draw_codes
from monge.transport import sliced_wasserstein

CODES, IMAGES = (1, 3, 10, 30, 100), (10, 100, 1000, 10_000)
STEPS = 600


def apart(x: torch.Tensor, y: torch.Tensor) -> float:
    """SW_2 with 2,000 directions of its own."""
    return float(sliced_wasserstein(x, y, directions=2000, generator=generator(0, "slices")))


def main() -> None:
    torch.set_num_threads(1)
    matched, errors, sampled = [], [], []
    for count in CODES:
        run = trained(
            "swae", "mnist", f"swae-{count}-slices", directions=count, training__steps=STEPS
        )
        codes = draw_codes(run.model, run.source.test[:2000])
        prior = run.model.prior.sample(2000, generator(0, "prior"))
        matched.append(apart(codes, prior))
        errors.append(run.summary()["test reconstruction"])
        code_floor = apart(run.model.prior.sample(2000, generator(0, "other")), prior)
    for count in IMAGES:
        run = trained(
            "swg", "mnist", f"swg-{count}-slices", directions=count, training__steps=STEPS
        )
        test = images_of_test(run)
        sampled.append(apart(run.model.sample(10_000, generator(0, "samples")).flatten(1), test))
        image_floor = apart(as_floats(run.source.train[:10_000]).flatten(1), test)
    print("codes", dict(zip(CODES, matched)), "floor", code_floor)
    print("reconstruction", dict(zip(CODES, errors)))
    print("images", dict(zip(IMAGES, sampled)), "floor", image_floor)
    figure = Figure(figsize=(10, 3.4))
    left, right = figure.subplots(1, 2)
    left.plot(CODES, matched, "o-", label="SW_2 of codes and prior")
    left.axhline(code_floor, color="grey", linestyle="--", label="floor: prior and prior")
    left.set(xscale="log", xlabel="directions a batch", title="SWAE, 8 codes")
    right.plot(IMAGES, sampled, "o-", label="SW_2 of samples and test images")
    right.axhline(image_floor, color="grey", linestyle="--", label="floor: training images")
    right.set(xscale="log", yscale="log", xlabel="directions a batch", title="SWG, 784 pixels")
    for axes in (left, right):
        axes.legend(frameon=False, fontsize=8)
    save(figure, "slices")


if __name__ == "__main__":
    main()
