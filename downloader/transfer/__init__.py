"""Moving bytes: engines, part files, publishing."""
