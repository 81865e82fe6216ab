"""Kernels in Triton for GPUs, each behind the function of another room that chooses it.

Their modules import Triton, which comes with torch's builds for GPUs and is no dependency: import
them inside a function, after `launch.is_usable`.
"""
