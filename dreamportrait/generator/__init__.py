"""The tri-plane generator and its parts."""
