"""How an approval is obtained, and what it covers."""
