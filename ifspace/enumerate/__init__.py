"""The search: every composition, the rule decided for every choice of its parameters."""
