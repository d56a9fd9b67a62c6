"""Reports of what a process did."""
