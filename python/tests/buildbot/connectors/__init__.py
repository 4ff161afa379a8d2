"""Tests of the connectors, and of what moves their state."""
