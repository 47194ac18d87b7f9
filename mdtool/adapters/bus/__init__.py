"""How accepted ticks reach what aggregates them."""
