"""Checkpoints of other projects, read as data."""
