"""What a call does, in sentences for the person or agent that decides."""
