"""Parts of a training run that any system can use: losses, schedules, checkpoints, resume, logs."""
