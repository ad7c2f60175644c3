"""The main job: every composition, the rule decided for every parameter choice."""
