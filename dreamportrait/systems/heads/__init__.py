"""Morphable heads: linear models of a head's shape, rendered differentiably and tuned to a prompt."""
