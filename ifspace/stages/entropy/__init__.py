"""Layouts of bottlenecks of the most entropy within budgets, with a bound on all of them."""
