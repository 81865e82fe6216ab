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
            draws = Draws(0, 1, 7, rank=rank, world=world)
            out[rank::world] = draws.normal("codes", torch.zeros(rows, 2))
        assert torch.equal(out, whole)


def test_micro_batches_together_draw_what_a_process_draws():
    draws = Draws(0, 1, 11, rank=1, world=2)
    whole = draws.normal("codes", torch.zeros(5, 2))
    for i in range(3):
        rows = whole[i::3]
        assert torch.equal(draws.micro_batch(i, 3).normal("codes", rows), rows)


def test_a_name_comes_before_every_purpose():
    """Names nest, and a micro-batch keeps them."""
    like, draws = torch.zeros(6, 3), Draws(0, 5, 6)
    named = draws.named("codes")
    assert not torch.equal(named.normal("inner", like), draws.normal("inner", like))
    assert torch.equal(named.normal("inner", like), draws.normal("codes inner", like))
    nested = draws.named("a").named("codes").micro_batch(1, 2)
    assert torch.equal(
        nested.normal("inner", like[1::2]), draws.normal("a codes inner", like)[1::2]
    )
    with named.stream("inner"):
        inside = torch.rand(2)
    with stream(0, 5, "codes inner"):
        assert torch.equal(torch.rand(2), inside)


def test_stream_seeds_inside_and_leaves_no_trace():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with stream(0, "x"):
        inside = torch.rand(2)
    assert torch.equal(torch.rand(2), expected)
    with stream(0, "x"):
        assert torch.equal(torch.rand(2), inside)


def test_seeds_of_different_keys_differ():
    keys = [(a, b) for a in range(30) for b in ("x", "y", "xy")] + [("x", "y"), ("xy",), (1, 11)]
    assert len({seed_of(*k) for k in keys}) == len(keys)


def test_normal_draws_are_finite_and_standard():
    z = standard_normal((200_000,))
    assert torch.isfinite(z).all()
    assert abs(z.mean()) < 0.01
    assert abs(z.std() - 1) < 0.01


def test_permutations_visit_everything_once():
    order = permutation(0, 1, 100)
    assert sorted(order.tolist()) == list(range(100))
    assert not torch.equal(order, permutation(0, 2, 100))
