"""Programs that time ifspace itself; their output is in results/."""
