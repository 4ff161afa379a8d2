"""The code of the guides runs."""
