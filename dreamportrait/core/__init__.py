"""Tools that every package may use: errors, configuration, processes, files, timing. Nothing here knows of heads."""
