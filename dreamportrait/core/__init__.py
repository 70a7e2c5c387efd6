"""Tools for every package: errors, configuration, processes, files, timing. Nothing here is specific to 3D heads."""
