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
            encoded = index[attribute].fill_null("").combine_chunks().dictionary_encode()
            names = encoded.dictionary.to_pylist()
            order = np.argsort(np.array(names, dtype=object)) if names else np.zeros(0, dtype=np.int64)
            self._codes[attribute] = np.argsort(order)[encoded.indices.to_numpy()], [names[i] for i in order]

    def count(self, rows: np.ndarray, copies: np.ndarray | None = None) -> Counts:
        """Of these rows (indices into the corpus). `copies`: how often each of them counts, int64 (rows,)."""
        counted = {}
        for attribute, (codes, names) in self._codes.items():
            numbers = np.bincount(codes[rows], minlength=len(names)) if copies is None else np.bincount(np.repeat(codes[rows], copies), minlength=len(names))
            counted[attribute] = dict(zip(names, numbers.tolist(), strict=True))
        return counted
