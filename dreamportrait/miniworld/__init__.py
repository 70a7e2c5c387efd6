"""The miniature world: procedural faces with exact depth and attributes, and captions of them."""
