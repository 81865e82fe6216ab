"""Randomness is a function of (seed, step, purpose), and of nothing else."""

import torch

from monge.draws import Draws, permutation, seed_of, standard_normal, stream


def test_draws_depend_on_seed_step_and_purpose_only():
    like = torch.zeros(6, 3)
    first = Draws(0, 5, 6)
    first.normal("other", like)
    again = Draws(0, 5, 6)
    assert torch.equal(first.normal("codes", like), again.normal("codes", like))
    others = [Draws(1, 5, 6), Draws(0, 6, 6)]
    assert all(
        not torch.equal(again.normal("codes", like), d.normal("codes", like)) for d in others
    )
    assert not torch.equal(again.normal("codes", like), again.normal("prior", like))


def test_processes_together_draw_what_one_would():
    whole = Draws(0, 1, 7).normal("codes", torch.zeros(7, 2))
    for world in (2, 3):
        out = torch.empty(7, 2)
        for rank in range(world):
            rows = len(range(rank, 7, world))
            part = Draws(0, 1, 7, rank=rank, world=world).normal("codes", torch.zeros(rows, 2))
            out[rank::world] = part
        assert torch.equal(out, whole)


def test_stream_seeds_inside_and_leaves_no_trace():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with stream(0, "x"):
        inside = torch.rand(2)
    assert torch.equal(torch.rand(2), expected)
    with stream(0, "x"):
        assert torch.equal(torch.rand(2), inside)


def test_seeds_of_unlike_parts_differ():
    parts = [(a, b) for a in range(30) for b in ("x", "y", "xy")] + [("x", "y"), ("xy",), (1, 11)]
    assert len({seed_of(*p) for p in parts}) == len(parts)


def test_normal_draws_are_finite_and_standard():
    z = standard_normal((200_000,))
    assert torch.isfinite(z).all()
    assert abs(z.mean()) < 0.01
    assert abs(z.std() - 1) < 0.01


def test_permutations_visit_everything_once():
    order = permutation(0, 1, 100)
    assert sorted(order.tolist()) == list(range(100))
    assert not torch.equal(order, permutation(0, 2, 100))
