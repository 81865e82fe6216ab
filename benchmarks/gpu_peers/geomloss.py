"""GeomLoss 0.3 (Feydy et al. 2019), dense, and on KeOps where that is installed.

Its cost is ‖x - y‖²/2 and its ε blur²: values and potentials count twice here.
"""

from gpu_measured import importable
from torch import Tensor


def backends(n: int, dense: int) -> list[str]:
    """Those that are there, and serve n points."""
    return (["online"] if importable("pykeops") else []) + (["tensorized"] if n <= dense else [])


def potentials(x: Tensor, y: Tensor, blur: float, scaling: float, backend: str):
    from geomloss import SamplesLoss

    options = {"blur": blur, "scaling": scaling, "backend": backend}
    f, g = SamplesLoss("sinkhorn", p=2, debias=False, potentials=True, **options)(x, y)
    return 2 * f.view(-1), 2 * g.view(-1)


def divergence(x: Tensor, y: Tensor, blur: float, scaling: float, backend: str) -> Tensor:
    from geomloss import SamplesLoss

    options = {"blur": blur, "scaling": scaling, "backend": backend}
    return 2 * SamplesLoss("sinkhorn", p=2, **options)(x, y)
