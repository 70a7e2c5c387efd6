"""Portraits as arrays, pictures and files."""
