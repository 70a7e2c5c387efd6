"""The head model of the miniature world, built from the solids that its pictures show."""
