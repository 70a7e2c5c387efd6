"""Scores of generated heads: quality, agreement with the text, diversity, consistency of views."""
