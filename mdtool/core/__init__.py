"""Floor 1: errors, settings, units, records, symbols, lifecycle, logs."""
