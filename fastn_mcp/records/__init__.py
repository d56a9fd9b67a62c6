"""How rows of Fastn are read, and what they say. No input or output."""
