"""Shortest paths, against networkx and a recursion over midpoints."""

import networkx
import numpy as np
import pytest
import scipy.sparse
import torch

from monge.transport import fused_gromov_wasserstein, gromov_wasserstein, shortest_paths

INFINITE = float("inf")


def by_midpoints(lengths):
    """Floyd and Warshall's recursion."""
    d = np.where(lengths > 0, lengths, np.inf)
    np.fill_diagonal(d, 0)
    for k in range(len(d)):
        d = np.minimum(d, d[:, [k]] + d[[k]])
    return d


def random_lengths(n, seed, directed):
    """A ring, so that there is a path, and some chords."""
    random = np.random.default_rng(seed)
    lengths = random.uniform(0.5, 2, (n, n)) * (random.random((n, n)) < 0.2)
    np.fill_diagonal(lengths, 0)
    lengths[np.arange(n), (np.arange(n) + 1) % n] = random.uniform(0.5, 2, n)
    return lengths if directed else np.triu(lengths, 1) + np.triu(lengths, 1).T


@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_every_form_of_a_graph_has_the_distances_of_the_recursion(seed, directed):
    lengths = random_lengths(9, seed, directed)
    expected = torch.from_numpy(by_midpoints(lengths))
    kind = networkx.DiGraph if directed else networkx.Graph
    infinite = np.where(lengths > 0, lengths, np.inf)
    for graph in (
        lengths,
        lengths.tolist(),
        infinite,
        torch.from_numpy(lengths),
        torch.from_numpy(lengths).to_sparse(),
        scipy.sparse.csr_matrix(lengths),
        scipy.sparse.coo_array(lengths),
        networkx.from_numpy_array(lengths, create_using=kind),
    ):
        found = shortest_paths(graph)
        assert found.dtype == torch.float64
        torch.testing.assert_close(found, expected)


def test_networkx_agrees_on_its_own_graphs():
    graph = networkx.karate_club_graph()
    for weight in ("weight", "none"):
        found = shortest_paths(graph, weight=weight)
        theirs = dict(networkx.all_pairs_dijkstra_path_length(graph, weight=weight))
        nodes = list(graph.nodes)
        expected = [[theirs[i][j] for j in nodes] for i in nodes]
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_names_of_nodes_several_edges_loops_and_lengths_of_zero():
    graph = networkx.MultiGraph()
    graph.add_edge("b", "a", weight=3)
    graph.add_edge("a", "b", weight=2)
    graph.add_edge("a", "c", weight=0)
    graph.add_edge("c", "c", weight=7)
    assert list(graph.nodes) == ["b", "a", "c"]
    assert shortest_paths(graph).tolist() == [[0, 2, 2], [2, 0, 0], [2, 0, 0]]
    stored = scipy.sparse.csr_matrix(([0.0, 0.0], ([0, 1], [1, 0])), shape=(2, 2))
    assert shortest_paths(stored).tolist() == [[0, 0], [0, 0]]
    assert shortest_paths(networkx.empty_graph(1)).tolist() == [[0]]


def test_an_adjacency_of_truths_has_lengths_of_one():
    ring = torch.eye(5).roll(1, 0).bool()
    expected = shortest_paths(ring.double())
    for graph in (ring, ring.numpy(), scipy.sparse.csr_matrix(ring.numpy())):
        assert torch.equal(shortest_paths(graph), expected)


def test_disconnected_graphs_are_refused_by_their_components():
    two = networkx.disjoint_union(networkx.path_graph(3), networkx.path_graph(2))
    with pytest.raises(
        ValueError, match=r"no path from 0 to 3, .* 2 components, \{0, 1, 2\}, \{3, 4\}: pass"
    ):
        shortest_paths(two)
    alone = torch.full((12, 12), INFINITE)
    with pytest.raises(ValueError, match=r"12 components, \{0\}, .*\{4\}, …: pass"):
        shortest_paths(alone)
    named = networkx.relabel_nodes(two, dict(enumerate("vwxyz")))
    with pytest.raises(ValueError, match=r"from v to y, .*\{v, w, x\}, \{y, z\}"):
        shortest_paths(named)
    one_way = networkx.DiGraph([(0, 1), (1, 2)])
    with pytest.raises(ValueError, match="no path from 1 to 0, and it has 3 components"):
        shortest_paths(one_way)
    long = networkx.disjoint_union(networkx.path_graph(9), networkx.path_graph(2))
    with pytest.raises(ValueError, match=r"\{0, 1, 2, 3, 4, …\}, \{9, 10\}"):
        shortest_paths(long)


@pytest.mark.parametrize(
    ("graph", "word"),
    [
        (networkx.Graph(), "at least one node"),
        (np.zeros((0, 0)), r"shape \(0, 0\)"),
        (np.zeros((2, 3)), r"shape \(2, 3\)"),
        (scipy.sparse.csr_matrix((2, 3)), r"shape \(2, 3\)"),
        ("graph", "got str"),
        (None, "got NoneType"),
        (-torch.ones(3, 3), "at least 0, got -1 from node 0 to node 0"),
        (torch.full((3, 3), float("nan")), "got nan"),
        (scipy.sparse.csr_matrix(np.eye(2) * 1j), "real numbers"),
        (networkx.Graph([(0, 1, {"weight": "far"})]), "numbers as `weight`.*'far'"),
        (networkx.Graph([(0, 1, {"weight": -2})]), "at least 0, got -2"),
    ],
)
def test_what_is_no_graph_is_named(graph, word):
    with pytest.raises(ValueError, match=f"`graph`.*{word}"):
        shortest_paths(graph)


def test_isomorphic_graphs_are_at_distance_zero():
    graph = networkx.random_labeled_tree(14, seed=3)
    order = torch.randperm(14).tolist()
    other = networkx.relabel_nodes(graph, dict(enumerate(order)))
    cx, cy = shortest_paths(graph), shortest_paths(other)
    plan = gromov_wasserstein(cx, cy, starts=8)
    assert float(plan.value) == pytest.approx(0, abs=1e-12)
    depth = torch.tensor([[d] for _, d in graph.degree], dtype=torch.float64)
    other_depth = torch.tensor([[d] for _, d in other.degree], dtype=torch.float64)
    plan = fused_gromov_wasserstein(torch.cdist(depth, other_depth), cx, cy)
    assert float(plan.value) == pytest.approx(0, abs=1e-12)


def test_lengths_neither_wrap_around_nor_overflow_in_silence():
    twice = scipy.sparse.coo_array(
        (np.array([200, 200, 200, 200], np.uint8), ([0, 0, 1, 1], [1, 1, 0, 0])), shape=(2, 2)
    )
    assert shortest_paths(twice)[0, 1] == 400
    path = np.diag([1e308, 1e308], 1)
    with pytest.raises(ValueError, match="`graph` has paths longer than float64 can hold"):
        shortest_paths(path + path.T)
