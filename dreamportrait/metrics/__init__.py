"""How good generated portraits are, and what they cost."""
