"""One package per method. Systems never import each other; code that two of them need belongs in a lower package."""
