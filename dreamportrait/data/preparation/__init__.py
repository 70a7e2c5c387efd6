"""From photographs with captions to a training set: landmarks, crops, head poses, clean captions."""
