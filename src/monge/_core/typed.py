"""Functions of other libraries that come without (complete) type annotations, with theirs.

Nothing is computed here. SciPy and POT are imported when they are first called.
"""

import importlib
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class Tree(Protocol):
    """A search tree over points, as SciPy's."""

    def query(self, x: NDArray[Any]) -> tuple[Floats, Integers]:
        """Distances and indices of the points nearest to x (n, d), both (n,)."""
        ...


def eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors of a symmetric matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return values, vectors


def eigvalsh(matrix: Tensor) -> Tensor:
    """Eigenvalues of a symmetric matrix, in ascending order."""
    return torch.linalg.eigvalsh(matrix)


def svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U, s and V with matrix = U diag(s) Vᵀ."""
    u, s, vh = torch.linalg.svd(matrix)
    return u, s, vh.mT


def qr(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The factors Q and R of matrices."""
    q, r = torch.linalg.qr(matrix)
    return q, r


def is_positive_definite(matrix: Tensor) -> bool:
    """Whether a symmetric matrix has a Cholesky factor."""
    return not bool(torch.linalg.cholesky_ex(matrix).info > 0)


def linear_solve(matrix: Tensor, target: Tensor) -> Tensor:
    """x with matrix · x = target."""
    return torch.linalg.solve(matrix, target)


def unchecked_solve(matrix: Tensor, target: Tensor) -> Tensor:
    """x with matrix · x = target, or anything where there is none; the host does not wait."""
    return torch.linalg.solve_ex(matrix, target).result


def symmetric_pseudo_inverse(matrix: Tensor, rtol: float | None = None) -> Tensor:
    """The Moore-Penrose inverse of a symmetric matrix, whose eigenvalues of at most `rtol` times
    the largest are 0; by default those that rounding hides, a threshold above torch's own, which
    it exceeds at times."""
    rounding = 10 * len(matrix) * torch.finfo(matrix.dtype).eps
    return torch.linalg.pinv(matrix, rtol=rounding if rtol is None else rtol, hermitian=True)


def vector_norm(x: Tensor, dim: int | None = None) -> Tensor:
    """Euclidean norms over one dimension, or of all entries."""
    return torch.linalg.vector_norm(x, dim=dim)


def spectral_norm(matrix: Tensor) -> Tensor:
    """The largest singular value."""
    return torch.linalg.matrix_norm(matrix, 2)


def ndtri(levels: Tensor) -> Tensor:
    """The quantile function of N(0, 1)."""
    return torch.special.ndtri(levels)


def split(x: Tensor, size: int) -> tuple[Tensor, ...]:
    """Successive rows of x, `size` at a time, as views."""
    return x.split(size)


def distinct_rows(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The distinct rows (k, d) of x (n, d), which of them each row is (n,), and their counts."""
    rows, index, counts = torch.unique(x, dim=0, return_inverse=True, return_counts=True)
    return rows, index, counts


def broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape to which shapes broadcast."""
    return tuple(torch.broadcast_shapes(*shapes))


def checkpointed(function: Callable[..., Tensor], *arguments: Tensor | None) -> Tensor:
    """function(*arguments), computed again in the backward pass instead of being stored; except
    under `torch.func`, which does not support that."""
    if not torch._C._autograd._saved_tensors_hooks_is_enabled():  # pyright: ignore
        return function(*arguments)
    return checkpoint(function, *arguments, use_reentrant=False)  # pyright: ignore


def from_numpy(array: NDArray[Any]) -> Tensor:
    """A tensor that shares memory with an array."""
    return torch.from_numpy(array)


def to_numpy(x: Tensor) -> NDArray[Any]:
    """An array that shares memory with a CPU tensor."""
    return x.numpy()


def linear_assignment(cost: NDArray[Any]) -> Integers:
    """The permutation σ (n,) that minimises Σ C_iσ(i)."""
    from scipy.optimize import linear_sum_assignment

    return linear_sum_assignment(cost)[1]


def pairwise_distances(x: Floats, y: Floats) -> Floats:
    """‖x_i - y_j‖, (n, m)."""
    from scipy.spatial.distance import cdist

    return np.asarray(cdist(x, y), dtype=np.float64)


def tree(points: NDArray[Any]) -> Tree:
    """A search tree over points (n, d)."""
    from scipy.spatial import KDTree

    return KDTree(points, balanced_tree=False)  # pyright: ignore


def sparse_matrix(rows: Integers, columns: Integers, values: Floats, size: int) -> Any:
    """A sparse matrix (size, size), which keeps entries that are 0."""
    from scipy.sparse import csr_matrix

    return csr_matrix((values, (rows, columns)), shape=(size, size))


def path_lengths(graph: Any) -> Floats:
    """The lengths of the shortest paths in a sparse matrix of edges, +∞ where there is none."""
    from scipy.sparse.csgraph import dijkstra

    return np.asarray(dijkstra(graph), dtype=np.float64)


def graph_components(graph: Any) -> tuple[int, Integers]:
    """The number of strongly connected components, and that of each node."""
    from scipy.sparse.csgraph import connected_components

    return connected_components(graph, directed=True, connection="strong")


@cache
def pot() -> Any:
    """POT, without a warning of Python about a docstring when it is compiled on first use."""
    with warnings.catch_warnings():
        for category in (SyntaxWarning, DeprecationWarning):  # the latter until Python 3.11
            warnings.filterwarnings("ignore", ".*invalid escape sequence", category)
        return importlib.import_module("ot")


def network_simplex(
    cost: Floats, a: Floats, b: Floats, most_iterations: int
) -> tuple[Floats, Floats, dict[str, Any]]:
    """POT's network simplex: the plan, the potential f, and an account of the solver."""
    plan, log = pot().emd(a, b, cost, numItermax=most_iterations, log=True)
    return plan, log["u"], log
