"""Text to CLIP features."""
