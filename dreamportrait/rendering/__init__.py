"""Cameras, rays and what they see."""
