"""Block sizes, thread counts and thresholds, per device.

Each value trades speed for memory, or says where one way of computing a thing becomes faster than
another; none of them changes what is computed. Each hot primitive has one function named
`choose_…` beside it, which picks its implementation by device, dtype and size:

- rows sorted on the line: `transport.sorting.choose_sort`
- rows of equally many values matched: `transport.line.choose_matching`
- reductions of a cost over rows: `transport.reductions.choose_reductions`
- soft minima of a cost: `transport.gibbs.choose_minima`
- products with a Gibbs kernel that the host does not look at: `transport.gibbs.choose_deferred`
- Sinkhorn's iteration: `transport.fixed_point.choose_iteration`
- sums of a kernel over all pairs: `kernels.choose_pair_sum`
- nearest neighbours: `transport.neighbours.choose_search`
"""

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class Tuning:
    """The values for one kind of device; the defaults are those of a CPU."""

    slice_values: int = 2**18
    """Projected values of each sample in a chunk of directions: one or two megabytes."""
    direction_entries: int = 2**20
    """Entries of random directions drawn at a time."""
    sort_values: int = 2**15
    """Fewest values that are sorted in several threads."""
    row_values: int = 1024
    """Most values of a row that one program on a GPU sorts."""
    kernel_rows: int = 512
    """Samples a side of the blocks of a kernel's sum: a megabyte of distances."""
    cost_entries: int = 2**18
    """Entries of a block of a cost matrix."""
    cost_rows: int = 16
    """Fewest rows of such a block: a product with fewer would read the other side for little."""
    gibbs_entries: int = 2**27
    """Most entries of a Gibbs kernel that is stored; a larger one is recomputed in blocks."""
    gibbs_range: float = 20.0
    """Change of a potential, in units of ε, after which a Gibbs kernel is computed anew."""
    tile_entries: int = 2**28
    """The same of a kernel whose negligible tiles are left out."""
    iterations_per_read: int = 1
    """Iterations of Sinkhorn's algorithm after which the host reads whether it has converged."""
    batched_entries: int = 2**18
    """Most entries of a cost whose problem is iterated together with those of its batch."""
    batch_entries: int = 2**23
    """Entries of the costs of problems that are solved together."""
    program_points: int = 0
    """Most points a side of a problem of which one program on a GPU does all iterations."""
    warm_up_ratio: float = 20.0
    """Ratio of mean cost to ε above which potentials are first computed for larger ε."""
    mean_points: int = 500
    """Most points a side over which a mean cost is taken: a scale, to a few per cent."""
    prepared_points: int = 600
    """Fewest points for which an assignment is prepared by entropic potentials."""
    neighbour_entries: int = 2**22
    """Squared distances in a block of a nearest-neighbour search."""
    converted_values: int = 2**23
    """Values of samples that are converted at a time, e.g. from bytes."""
    sets: int = 8
    """Sets of points whose distances are computed at a time."""
    regression_rows: int = 1024
    """Rows of a least-squares problem that are factorised at a time."""


CPU = Tuning()
ACCELERATOR = replace(
    CPU,
    slice_values=2**24,
    cost_entries=2**24,
    gibbs_entries=2**29,
    tile_entries=2**30,
    iterations_per_read=8,
    program_points=512,
    # in large blocks, since each reads from the device whether it was resolved
    kernel_rows=4096,
    neighbour_entries=2**25,
)


def tuning(device: torch.device) -> Tuning:
    """The values for a device: one row for CPUs, one for accelerators."""
    return CPU if device.type == "cpu" else ACCELERATOR


_setting = threading.Lock()


@contextlib.contextmanager
def using_threads(count: int | None) -> Iterator[None]:
    """Inside, torch computes in `count` threads for this thread; None leaves their number.

    `torch.set_num_threads` sets the number of the thread that calls it, and the number that
    threads which have not used torch yet start with. Only the first is meant: two trainings in
    two threads, each with a number of its own, do not change each other's.
    """
    if count is None:
        yield
        return
    before = torch.get_num_threads()
    _set_threads(count)
    try:
        yield
    finally:
        _set_threads(before)


def _set_threads(count: int) -> None:
    with _setting, ThreadPoolExecutor(1) as fresh:
        of_new_threads = fresh.submit(torch.get_num_threads).result()
        torch.set_num_threads(count)
        fresh.submit(torch.set_num_threads, of_new_threads).result()


def threads() -> int:
    """Threads among which work outside torch is divided: as many as torch uses."""
    return torch.get_num_threads()
