"""Checks of an installation: each returns what it found, and what to do about it."""
