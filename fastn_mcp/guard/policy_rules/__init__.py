"""Rules of the policy file."""
