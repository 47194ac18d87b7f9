"""Floor 3: one technology each, behind a Protocol."""
