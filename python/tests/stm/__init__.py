"""Tests of holdfast.stm."""
