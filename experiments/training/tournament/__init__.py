"""A tournament: blocks of a front against blocks that fail the field, trained at equal parameters.

`python -m experiments.training.tournament RUNS` runs it; RUNS is a folder with a file for every
trained network, and the same command goes on where it was ended.
"""
