r"""Distances in graphs: the lengths of shortest paths, as Gromov-Wasserstein compares them.

A graph is one of networkx (or of anything that has its `nodes`, `edges` and `is_directed`), a
sparse matrix of SciPy or a dense matrix of edge lengths, in which 0 and +∞ say that there is no
edge. Paths are SciPy's (Dijkstra's algorithm, n² log n + n |E|).

Source: Dijkstra, "A note on two problems in connexion with graphs", 1959.
"""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from monge._core.promotion import as_tensor
from monge._core.typed import (
    Floats,
    Integers,
    from_numpy,
    graph_components,
    path_lengths,
    sparse_matrix,
    to_numpy,
)

MOST_NAMED = 5
"""How many nodes or components a message names."""

Edges = tuple[Integers, Integers, Floats]
"""From, to, and length of each edge."""


def shortest_paths(graph: Any, *, weight: str = "weight") -> Tensor:
    """The lengths of the shortest paths between all nodes of a graph.

    Args:
        graph: a graph of networkx; or the lengths of its edges as a sparse matrix of SciPy or a
            matrix (n, n), whose entries 0 (where they are not stored) and +∞ are no edges. A
            matrix that is not symmetric is a directed graph.
        weight: the attribute of the edges of a networkx graph that holds their lengths; edges
            without it have length 1, of several between two nodes the shortest counts.

    Returns:
        The distances, float64 (n, n), in the order of the nodes: `list(graph.nodes)` of networkx.
        They take no gradient.

    Raises:
        ValueError: for a graph without nodes, lengths that are negative or NaN, and a graph that
            is not (strongly) connected, with its components.

    Example:
        >>> ring = torch.eye(6).roll(1, 0) + torch.eye(6).roll(-1, 0)
        >>> shortest_paths(ring)[0].tolist()
        [0.0, 1.0, 2.0, 3.0, 2.0, 1.0]
    """
    device = graph.device if isinstance(graph, Tensor) else "cpu"
    if hasattr(graph, "edges") and hasattr(graph, "nodes"):
        names, edges = _of_networkx(graph, weight)
    elif hasattr(graph, "tocoo"):
        names, edges = _of_sparse(graph)
    else:
        names, edges = _of_dense(graph)
    edges = _checked_edges(*edges)
    lengths = path_lengths(sparse_matrix(*edges, len(names)))
    if not np.isfinite(lengths).all():
        _refuse_disconnected(names, edges, lengths)
    return from_numpy(lengths).to(device)


def _of_networkx(graph: Any, weight: str) -> tuple[Sequence[Hashable], Edges]:
    """The nodes in their order, and the edges, those of an undirected graph in both directions."""
    names = list(graph.nodes)
    if not names:
        raise ValueError("`graph` must have at least one node, got none")
    index = {name: i for i, name in enumerate(names)}
    shortest: dict[tuple[int, int], float] = {}
    for tail, head, given in graph.edges(data=weight, default=1.0):
        try:
            length = float(given)
        except (TypeError, ValueError):
            raise ValueError(
                f"`graph` must have numbers as `{weight}` of its edges, got {given!r} between "
                f"{tail!r} and {head!r}"
            ) from None
        i, j = index[tail], index[head]
        for pair in [(i, j)] if graph.is_directed() else [(i, j), (j, i)]:
            shortest[pair] = min(length, shortest.get(pair, length))
    pairs = np.array(list(shortest), dtype=np.int64).reshape(-1, 2)
    return names, (pairs[:, 0], pairs[:, 1], np.array(list(shortest.values()), dtype=np.float64))


def _of_sparse(graph: Any) -> tuple[range, Edges]:
    # entries of one place are summed, as SciPy does, which in small integers would overflow
    wide = graph.astype(np.float64) if graph.dtype.kind in "iu" else graph
    coo = wide.tocsr().tocoo()
    rows, columns = (np.asarray(z, dtype=np.int64) for z in (coo.row, coo.col))
    return range(_checked_shape(graph.shape)), (rows, columns, to_numpy(_numbers(coo.data)))


def _of_dense(graph: Any) -> tuple[range, Edges]:
    lengths = to_numpy(_numbers(graph.to_dense() if isinstance(graph, Tensor) else graph))
    count = _checked_shape(lengths.shape)
    rows, columns = lengths.nonzero()
    return range(count), (rows, columns, lengths[rows, columns])


def _numbers(values: Any) -> Tensor:
    """Lengths in float64; of an adjacency they are 1."""
    return as_tensor("graph", values).detach().double().cpu()


def _checked_shape(shape: tuple[int, ...]) -> int:
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] < 1:
        raise ValueError(
            "`graph` must be a graph of networkx or a square matrix of edge lengths, got shape "
            f"{tuple(shape)}"
        )
    return int(shape[0])


def _checked_edges(rows: Integers, columns: Integers, lengths: Floats) -> Edges:
    """The edges without those of infinite length, if all lengths are at least 0."""
    invalid = ~(lengths >= 0)
    if invalid.any():
        first = int(invalid.argmax())
        raise ValueError(
            "`graph` must have edges of lengths of at least 0, got "
            f"{lengths[first]:.4g} from node {rows[first]} to node {columns[first]}"
        )
    kept = np.isfinite(lengths) & (rows != columns)
    return rows[kept], columns[kept], lengths[kept]


def _refuse_disconnected(names: Sequence[Hashable], edges: Edges, lengths: Floats) -> None:
    """Raises with the components of a graph between which there is no path."""
    count, labels = graph_components(sparse_matrix(*edges, len(names)))
    if count == 1:
        raise ValueError("`graph` has paths longer than float64 can hold: divide its lengths")
    sizes = np.bincount(labels)
    parts: list[str] = []
    for label in np.argsort(-sizes, kind="stable")[:MOST_NAMED]:
        nodes = [str(names[i]) for i in np.flatnonzero(labels == label)[:MOST_NAMED]]
        parts.append("{" + ", ".join(nodes) + (", …}" if sizes[label] > MOST_NAMED else "}"))
    more = ", …" if count > MOST_NAMED else ""
    tail, head = (names[int(i)] for i in np.argwhere(~np.isfinite(lengths))[0])
    raise ValueError(
        f"`graph` must be connected: there is no path from {tail} to {head}, and it has {count} "
        f"components, {', '.join(parts)}{more}: pass one of them, or join them by edges"
    )
