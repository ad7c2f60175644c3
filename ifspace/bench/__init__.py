"""Benchmarks: scripts whose output stands in `results/`, never timed tests."""
