"""The tool `get_overview`."""
