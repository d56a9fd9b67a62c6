"""The tool `diagnose`."""
