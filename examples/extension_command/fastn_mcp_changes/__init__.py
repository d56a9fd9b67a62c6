"""Command that counts the changes of each day."""
