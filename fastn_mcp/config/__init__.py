"""Settings: flags, environment and file, read once at the edge."""
