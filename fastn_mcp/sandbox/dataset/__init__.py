"""The data that the sandbox begins with."""
