"""One package for each method. Systems never import each other; what two of them need moves down."""
