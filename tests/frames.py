"""A data frame of pandas, which is no dependency, as far as estimators read it."""

import numpy as np


class Frame:
    """What is read of a data frame of pandas, whose columns need not be called by texts."""

    def __init__(self, columns):
        self.columns, self.by_name = [*columns], columns

    def __getitem__(self, name):
        return self.by_name[name]

    def __array__(self, dtype=None, copy=None):
        return np.stack([*self.by_name.values()], axis=1).astype(dtype)
