"""What the program costs, measured beside what people would use instead: docs/performance.md."""
