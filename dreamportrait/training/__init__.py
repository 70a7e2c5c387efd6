"""What every training run shares: the loop, checkpoints, schedules, running averages."""
