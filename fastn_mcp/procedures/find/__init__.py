"""The tool `find`."""
