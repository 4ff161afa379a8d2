"""Tests of the generated messages."""
