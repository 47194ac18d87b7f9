"""Floor 5: one module or package a subcommand, from options to one call."""
