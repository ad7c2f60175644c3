"""The widths of greatest layout energy: an exact program and a CP-SAT model, one problem."""

from ifspace.optimize.energy.best import Method, best_energy, rank

__all__ = ["Method", "best_energy", "rank"]
