"""What the HTTP services have in common: listening, answers in JSON, logging."""
