"""Tests of the Python package, by facade; ``support`` is what they share."""
