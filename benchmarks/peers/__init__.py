"""What people would use instead: command-line tools, and the scripts they would write."""
