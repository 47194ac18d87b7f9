"""Who clients are: what checks tokens, and its settings."""
