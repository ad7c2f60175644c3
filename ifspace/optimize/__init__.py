"""Best group counts, widths and layouts: CP-SAT with proof, closed forms beside it."""
