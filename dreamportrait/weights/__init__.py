"""Weights on disk: where they lie, whether they are complete, and how untrusted files are read. No networks here."""
