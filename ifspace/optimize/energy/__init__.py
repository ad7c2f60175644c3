"""The widths of greatest layout energy: an exact program and a CP-SAT model, one problem."""

from ifspace.optimize.energy.best import Search, best_energy, exact_energy, rank

__all__ = ["Search", "best_energy", "exact_energy", "rank"]
