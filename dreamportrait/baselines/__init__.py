"""What the paper compares with: optimisation of one head for each prompt, and lifting of pictures to heads."""
