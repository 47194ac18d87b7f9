"""Floor 5: one module a subcommand, from options to one call."""
