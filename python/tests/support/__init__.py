"""What the tests of all facades share."""
