"""Tests of the GC3Pie facade, with real sessions."""
