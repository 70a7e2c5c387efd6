"""The miniature world: procedural faces, small CLIPs, a small diffusion model and a small EG3D, made to be trained in
hours on two CPU cores and to run in minutes."""
