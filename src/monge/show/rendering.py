"""Pictures of point clouds: shaded discs, painted from far to near."""

import math

import numpy as np
import torch
from torch import Tensor

from monge._core.checks import finite

SIDE = 120
VIEWS = (-0.6, 0.5, 1.6)
"""Angles of the three views about the upright axis, in radians."""
PITCH = 0.35
LIGHT = (0.4, 0.7, 0.6)
COLOUR = (70, 130, 190)
NEIGHBOURS = 16


def normals(points: np.ndarray) -> np.ndarray:
    """Unit normals (N, 3), up to sign, of the planes through each point's nearest neighbours."""
    from scipy.spatial import KDTree

    k = min(NEIGHBOURS, len(points))
    near = points[KDTree(points).query(points, k)[1].reshape(len(points), k)]
    centred = near - near.mean(1, keepdims=True)
    # eigenvalues ascend, so the neighbours vary least in the first direction
    return np.linalg.eigh(centred.swapaxes(1, 2) @ centred)[1][:, :, 0]


def rotation(yaw: float, pitch: float = PITCH) -> np.ndarray:
    """The rotation (3, 3) by `yaw` about y, which is up, and then of the camera by `pitch`."""
    c, s, d, t = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch)
    camera = np.array([[1, 0, 0], [0, d, -t], [0, t, d]])
    return camera @ [[c, 0, s], [0, 1, 0], [-s, 0, c]]


def view(points: np.ndarray, yaw: float, side: int = SIDE) -> np.ndarray:
    """A cloud (N, 3) in the unit sphere, turned and seen from the front: uint8 (side, side, 3)."""
    turn = rotation(yaw)
    x, y, depth = turn @ points.T
    facing = np.abs((normals(points) @ turn.T) @ (np.array(LIGHT) / np.linalg.norm(LIGHT)))
    shade = (0.35 + 0.65 * facing) * (0.8 + 0.2 * np.clip(depth, -1, 1))
    colours = (np.array(COLOUR) * shade[:, None] + 60 * (facing[:, None] ** 8)).clip(0, 255)
    radius = max(1, side // 80)
    canvas = np.full((side, side, 3), 255, np.uint8)
    # points far outside, which integers may not hold, end at the edge as those just outside do
    x, y = x.clip(-9, 9), y.clip(-9, 9)
    column = ((0.5 + 0.47 * x) * (side - 1)).round().astype(int)
    row = ((0.5 - 0.47 * y) * (side - 1)).round().astype(int)
    order = np.argsort(depth)
    steps = range(-radius, radius + 1)
    discs = [(i, j) for i in steps for j in steps if i * i + j * j <= radius * radius + 1]
    offsets = np.array(discs)
    rows = (row[order, None] + offsets[:, 0]).clip(0, side - 1)
    columns = (column[order, None] + offsets[:, 1]).clip(0, side - 1)
    # where discs overlap, the last write stays, which is the nearest
    canvas[rows.ravel(), columns.ravel()] = colours[order].repeat(len(discs), 0)
    return canvas


def render(clouds: Tensor, views: tuple[float, ...] = VIEWS[:1], side: int = SIDE) -> Tensor:
    """Pictures of clouds (n, N, 3) in [0, 1], views side by side: (n, 3, side, side · views).

    Raises:
        ValueError: for clouds that are not finite, as those of a model that has diverged.
    """
    pictures = [
        np.concatenate([view(cloud, yaw, side) for yaw in views], 1)
        for cloud in finite("clouds", clouds).detach().cpu().double().numpy()
    ]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255
