"""Weights on disk: finding them, checking that they are complete, reading untrusted files. No networks are here."""
