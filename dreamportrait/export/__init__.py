"""Portraits as files for others."""
