"""Rows that are alike: texts as vectors, an index over them, and what a row's nearest neighbours give it."""
