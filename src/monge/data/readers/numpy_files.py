"""Arrays of NumPy's files, which take no more memory than the file can fill."""

import math
import zipfile
from typing import IO

import numpy as np

from monge.data.readers.caps import demand_memory, demand_packed

HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""How NumPy writes arrays in archives."""


def array_in(file: IO[bytes], size: int) -> np.ndarray:
    """The array in a .npy file of `size` bytes that can be read twice.

    Raises:
        ValueError: for a damaged header, one that promises more than the file holds, or arrays of
            objects or records.
    """
    version = np.lib.format.read_magic(file)
    if version not in HEADERS:
        raise ValueError(f"version {version[0]}.{version[1]} of the .npy format is not read")
    shape, _, dtype = HEADERS[version](file)
    if dtype.kind not in "biufcSU":
        raise ValueError(f"it holds {dtype}: only numbers and texts are read")
    needed, rest = math.prod(shape) * max(1, dtype.itemsize), size - file.tell()
    if min(shape, default=0) < 0 or needed > rest:
        raise ValueError(
            f"its header promises {shape} of {dtype}, and {max(0, rest):,} bytes follow"
        )
    if needed < rest:
        raise ValueError(
            f"{rest - needed:,} bytes follow its array {shape} of {dtype}, as where several were "
            "saved into one file: save each as a file of its own"
        )
    demand_memory(needed, f"{shape} of {dtype}")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def array_of(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """The array of a member of a .npz file.

    Raises:
        ValueError: as `array_in`; for a member that is packed as NumPy packs none, or is said to
            hold more than its packed bytes can.
    """
    if member.compress_type not in PACKED:
        raise ValueError(f"{member.filename} is packed by another method than deflate")
    demand_packed(member.file_size, member.compress_size, member.filename)
    with archive.open(member) as file:
        return array_in(file, member.file_size)
