"""What a training costs: parameters, memory, time and disk space, before it is started."""
