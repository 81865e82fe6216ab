"""The nearest-neighbour search against whole matrices, over blocks and conversions."""

import dataclasses

import pytest
import torch

from monge._core import tuning
from monge.transport.neighbours import (
    choose_search,
    nearest,
    nearest_in_sets,
    nearest_squared,
    visit_distances,
    visit_distances_within,
)


@pytest.fixture(params=[7, 2**22])
def blocks(request, monkeypatch):
    """Blocks of one row, and blocks that hold everything."""
    small = dataclasses.replace(tuning.CPU, neighbour_entries=request.param)
    monkeypatch.setattr(tuning, "CPU", small)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("k", [1, 3, 30])
def test_the_nearest_are_those_of_the_whole_matrix(k):
    x, y = torch.randn(11, 4, dtype=torch.float64), torch.randn(20, 4, dtype=torch.float64)
    squared, index = nearest(x + 1000, y + 1000, k)
    expected = torch.cdist(x, y).square().topk(min(k, 20), largest=False)
    assert torch.equal(index, expected.indices)
    torch.testing.assert_close(squared, expected.values, rtol=1e-6, atol=1e-9)
    assert torch.equal(nearest_squared(x + 1000, y + 1000), squared[:, 0])


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("values", [1, 90, 2**23])
@pytest.mark.parametrize("k", [1, 4])
def test_bytes_are_converted_by_block(values, k, monkeypatch):
    changed = dataclasses.replace(tuning.CPU, converted_values=values)
    monkeypatch.setattr(tuning, "CPU", changed)
    images = torch.randint(256, (13, 1, 3, 3), dtype=torch.uint8)
    x = torch.rand(5, 9)
    sizes = []

    def convert(block):
        sizes.append(len(block))
        return block.flatten(1) / 255

    squared, index = nearest(x, images, k, convert=convert)
    assert sum(sizes) == 13
    assert max(sizes) == min(13, max(k, values // 9))
    expected = torch.cdist(x, images.flatten(1) / 255).square().topk(k, largest=False)
    torch.testing.assert_close(squared, expected.values)
    assert torch.equal(index, expected.indices)


def test_a_row_that_is_found_again_is_at_distance_zero_or_above():
    x = torch.randn(50, 3) + 100
    squared, index = nearest(x, x)
    assert torch.equal(index[:, 0], torch.arange(50))
    assert (squared >= 0).all()
    assert squared.max() < 1e-4


@pytest.mark.usefixtures("blocks")
def test_blocks_cover_the_matrix_of_squared_distances():
    x, y = torch.randn(9, 3, dtype=torch.float64), torch.randn(6, 3, dtype=torch.float64)
    whole, within = torch.zeros(9, 6, dtype=x.dtype), torch.zeros(9, 9, dtype=x.dtype)
    visit_distances(x, y, lambda rows, squared: whole[rows].copy_(squared))
    torch.testing.assert_close(whole, torch.cdist(x, y).square())
    visit_distances_within(x, lambda rows, squared: within[rows].copy_(squared))
    assert torch.isinf(within.diagonal()).all()
    torch.testing.assert_close(
        within.fill_diagonal_(0), torch.cdist(x, x).square().fill_diagonal_(0)
    )


def test_sets_are_searched_alike_by_trees_and_by_blocks():
    x, y = torch.randn(11, 30, 3), torch.randn(11, 25, 3)
    expected = torch.cdist(x, y).argmin(2)
    assert torch.equal(nearest_in_sets(x, y), expected)
    blocks = choose_search(torch.device("mps"), batched=True)
    assert torch.equal(blocks(x, y), expected)


def test_at_least_one_neighbour_is_asked_for():
    with pytest.raises(ValueError, match="`k` must be an integer of at least 1"):
        nearest(torch.zeros(2, 1), torch.zeros(2, 1), 0)


@pytest.mark.parametrize("within", [True, False])
def test_far_clusters_have_the_neighbours_of_their_members(within):
    """Two clusters of width 1 at ±10⁴ in float32, against differences in float64."""
    side = torch.where(torch.arange(80) % 2 == 0, 1e4, -1e4)[:, None]
    x, y = torch.randn(80, 5) + side, torch.randn(80, 5) + side
    y = x if within else y
    apart = (x.double()[:, None] - y.double()).square().sum(-1)
    least = torch.empty(80)

    def visit(rows, squared):
        least[rows] = squared.amin(1)

    if within:
        apart.fill_diagonal_(torch.inf)
        visit_distances_within(x, visit)
    else:
        visit_distances(x, y, visit)
        torch.testing.assert_close(nearest(x, y)[1][:, 0], apart.argmin(1))
    torch.testing.assert_close(least.double(), apart.amin(1), rtol=1e-5, atol=0)
