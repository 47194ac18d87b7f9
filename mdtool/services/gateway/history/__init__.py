"""The history of trades: pages of what a store keeps, whichever protocol asks for them."""
