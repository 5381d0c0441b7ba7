"""Looks at the files of a user and writes a recipe for them."""
