"""Tests of the Buildbot facade, with real masters."""
