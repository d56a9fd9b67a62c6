"""HTTP to Fastn."""
