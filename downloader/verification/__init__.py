"""Comparing what the database says with what is on the disk, and putting it right."""
