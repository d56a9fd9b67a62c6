"""What a policy file can say: matching rules and protected resources, times of day, and what can never apply."""
