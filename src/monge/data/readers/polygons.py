"""Polygons of meshes cut into triangles: fans where those cover them, ears where they do not."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

MOST_CORNERS = 1000
"""Corners of a concave polygon, whose ears take the square of their number to cut."""
TRIES, FREE_TRIES = 20, 100_000
"""Corners that may be looked at to cut the ears of a file: for each that it has, and besides."""


def triangulated(polygons: Any, points: np.ndarray) -> np.ndarray:
    """Polygons, each a list of rows of `points`, cut into triangles (m, 3) by `cut`."""
    lengths = np.fromiter(map(len, polygons), int, len(polygons))
    corners = np.fromiter(itertools.chain.from_iterable(polygons), int, lengths.sum())
    return cut(corners, lengths, points)


def cut(corners: np.ndarray, lengths: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Polygons cut into triangles (m, 3), rows of `points`.

    A fan about the first corner covers a polygon if all its triangles turn the same way, as in
    every convex one. Otherwise ears are cut off: Meisters, "Polygons have ears", 1975.

    Args:
        corners: the rows of points of all polygons, one behind the other.
        lengths: how many corners each polygon has.
        points: (n, 3).

    Raises:
        ValueError: for corners that are not points, faces without any area, and concave polygons
            that intersect themselves or have more than a thousand corners.
    """
    counts = (lengths - 2).clip(min=0)  # of the triangles in each fan
    firsts = np.repeat(np.cumsum(lengths) - lengths, counts)
    seconds = firsts + 1 + np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    triangles = corners[np.stack([firsts, seconds, seconds + 1], 1)]
    if len(lengths) and len(triangles) == 0:
        raise ValueError("its faces have no area")
    if len(corners) and not 0 <= corners.min() <= corners.max() < len(points):
        raise ValueError("its faces name vertices that it does not have")
    if counts.max(initial=0) < 2:
        return triangles
    a, b, c = points[triangles].swapaxes(0, 1)
    normals = np.cross(b - a, c - a)
    starts, counts = (np.cumsum(counts) - counts)[counts > 0], counts[counts > 0]
    totals = np.add.reduceat(normals, starts)
    aligned = (normals * np.repeat(totals, counts, 0)).sum(1)
    turned = aligned < -1e-9 * np.repeat((totals**2).sum(1), counts)
    folded = np.logical_or.reduceat(turned, starts).nonzero()[0].tolist()
    if not folded:
        return triangles
    fans = np.split(triangles, starts[1:])
    tries = iter(range(TRIES * len(corners) + FREE_TRIES))
    for i in folded:
        polygon = np.r_[fans[i][:, 0][:1], fans[i][:, 1], fans[i][-1:, 2]]
        fans[i] = _ears(polygon, points[polygon], totals[i], tries)
    return np.concatenate(fans)


def _ears(
    polygon: np.ndarray, corners: np.ndarray, normal: np.ndarray, tries: Iterator[int]
) -> np.ndarray:
    """A simple polygon cut into triangles (m, 3) that cover it once.

    Args:
        polygon: rows of points, (k,).
        corners: those points, (k, 3).
        normal: the sum of the cross products of its fan, twice its area times its normal, (3,).
        tries: how many corners of all polygons may be looked at.
    """
    if len(polygon) > MOST_CORNERS:
        raise ValueError(f"a concave face has {len(polygon):,} corners: cut it into triangles")
    axis = int(np.abs(normal).argmax())  # along which the polygon is projected into a plane
    plane = np.delete(corners, axis, 1) * ([1, -1] if (axis == 1) != (normal[axis] < 0) else 1)
    left = list(range(len(polygon)))
    triangles = []
    while len(left) > 2:
        for k in range(len(left)):
            if next(tries, None) is None:
                raise ValueError("concave faces of too many corners: cut them into triangles")
            i, j, m = left[k - 1], left[k], left[(k + 1) % len(left)]
            turn = _turn(plane[i], plane[j], plane[m])
            size = np.linalg.norm(plane[j] - plane[i]) * np.linalg.norm(plane[m] - plane[j])
            if abs(turn) <= 1e-12 * size:
                break  # a corner on a straight edge has no area
            if turn > 0 and not _holds_any(plane[[i, j, m]], plane[left]):
                triangles.append(polygon[[i, j, m]])
                break
        else:
            raise ValueError("a face intersects itself")
        del left[k]
    return np.array(triangles, int).reshape(-1, 3)


def _turn(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Twice the signed areas of triangles in a plane, positive if they turn left."""
    u, v = b - a, c - a
    return u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]


def _holds_any(triangle: np.ndarray, others: np.ndarray) -> bool:
    """Whether any of some points (n, 2), but the corners themselves, lies in a triangle (3, 2)."""
    a, b, c = triangle
    inside = (_turn(a, b, others) >= 0) & (_turn(b, c, others) >= 0) & (_turn(c, a, others) >= 0)
    corner = (others[:, None] == triangle).all(-1).any(-1)
    return bool((inside & ~corner).any())
