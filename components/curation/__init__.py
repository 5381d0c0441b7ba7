"""Which rows are worth training on: one small file per filter, found by `kind`."""
