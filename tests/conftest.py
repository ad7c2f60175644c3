"""What every test runs under: Triton's interpreter, torchvision, reproducible examples."""

import os

# Before anything imports triton: its decorators read this once, at import. `make test-gpu` runs the
# same tests compiled, on the card.
if os.environ.get("IFSPACE_TEST_DEVICE", "cpu") == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"

import torchvision_operators
from hypothesis import settings

torchvision_operators.prepare()

# The same examples on every run: a red test can be run again and stays red.
settings.register_profile(
    "default", derandomize=True, deadline=None, max_examples=60, print_blob=True
)
settings.register_profile("thorough", deadline=None, max_examples=2000, print_blob=True)
settings.load_profile(os.environ.get("IFSPACE_HYPOTHESIS_PROFILE", "default"))
