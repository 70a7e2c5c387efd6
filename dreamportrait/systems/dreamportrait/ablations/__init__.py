"""The ablations of the paper: training, measuring and comparing the method with one part changed."""
