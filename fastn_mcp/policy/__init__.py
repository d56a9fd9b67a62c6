"""What may be sent: the policy, its rules, decisions and signed plans. Reads no account and sends nothing."""
