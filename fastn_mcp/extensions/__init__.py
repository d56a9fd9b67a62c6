"""What the core can do without: each folder is one extension, which imports no other."""
