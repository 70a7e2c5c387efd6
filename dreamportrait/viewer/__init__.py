"""The browser viewer, `dreamportrait view`. It needs viser, which `dreamportrait[view]` installs."""
