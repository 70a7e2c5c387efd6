"""The miniature EG3D: the full-size classes at 64 x 64, trained in three stages (warm, mapping, gan)."""
