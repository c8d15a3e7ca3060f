"""The groups of measurements: a module each, with `measure(bench)` that returns rows."""
