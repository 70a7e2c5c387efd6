"""The ablations of the paper: train, measure and compare the method with one part changed."""
