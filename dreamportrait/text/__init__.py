"""Prompts into features that condition a generator."""
