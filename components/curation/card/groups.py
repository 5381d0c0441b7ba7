"""How many rows of each source, language and category there are among some of a corpus's rows."""

import numpy as np
import pyarrow as pa

ATTRIBUTES = ("source", "language", "category")

Counts = dict[str, dict[str, int]]
"""Attribute -> value -> rows, values sorted; every value of the corpus is there, maybe with 0."""


class Groups:
    """The sources, languages and categories of a corpus."""

    def __init__(self, index: pa.Table):
        """`index`: a row for every row of the corpus, with the columns ATTRIBUTES."""
        self._codes: dict[str, tuple[np.ndarray, list[str]]] = {}
        for attribute in ATTRIBUTES:
            names, codes = np.unique(np.array(index[attribute].to_pylist(), dtype=object).astype(str), return_inverse=True)
            self._codes[attribute] = codes, names.tolist()

    def count(self, rows: np.ndarray, copies: np.ndarray | None = None) -> Counts:
        """Of these rows (indices into the corpus). `copies`: how often each of them counts, int64 (rows,)."""
        counted = {}
        for attribute, (codes, names) in self._codes.items():
            numbers = np.bincount(codes[rows], minlength=len(names)) if copies is None else np.bincount(np.repeat(codes[rows], copies), minlength=len(names))
            counted[attribute] = dict(zip(names, numbers.tolist(), strict=True))
        return counted
