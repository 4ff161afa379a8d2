"""Stores of objects, without GC3Pie."""
