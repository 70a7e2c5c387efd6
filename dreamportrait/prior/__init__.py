"""A text prior in W: which w of a frozen generator a sentence means, learnt from pairs without rendering."""
