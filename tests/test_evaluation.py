"""Measures of images, against SciPy and by hand."""

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d

from monge.evaluation import sharpness


def test_sharpness_is_the_variance_of_the_laplacian_by_scipy():
    x = torch.rand(4, 3, 9, 7, dtype=torch.float64)
    grey = np.einsum("nchw,c->nhw", x.numpy(), [0.299, 0.587, 0.114])
    kernel = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])
    expected = np.mean([convolve2d(image, kernel, mode="valid").var() for image in grey])
    assert sharpness(x) == pytest.approx(expected, rel=1e-12)
    assert sharpness(torch.from_numpy(grey)[:, None]) == pytest.approx(expected, rel=1e-12)


def test_sharpness_of_smooth_and_of_chequered_images():
    """0 for a plane; on a chequerboard the Laplacian is ±4, of variance 16."""
    rows, columns = torch.meshgrid(torch.arange(10.0), torch.arange(10.0), indexing="ij")
    assert sharpness(((rows + columns) / 20)[None, None]) == pytest.approx(0, abs=1e-12)
    assert sharpness(((rows + columns) % 2)[None, None]) == pytest.approx(16)


@pytest.mark.parametrize(
    "x",
    [torch.rand(4, 9, 9), torch.rand(2, 2, 9, 9), torch.rand(2, 1, 2, 9), -torch.ones(1, 1, 5, 5)],
)
def test_images_without_a_sharpness_are_refused(x):
    with pytest.raises(ValueError, match="`images` must"):
        sharpness(x)
