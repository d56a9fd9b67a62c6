"""What each operation does to the sandbox's account."""
