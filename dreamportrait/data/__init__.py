"""Data sets of pictures with cameras and captions: reading, writing, batches for training."""
