"""Datasette on the live database: what there is to see, and what is never shown."""
