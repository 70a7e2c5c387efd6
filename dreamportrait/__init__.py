"""DreamPortrait: text-to-3D portraits from a tri-plane GAN."""

__version__ = "0.1.0"
