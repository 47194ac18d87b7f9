"""Floor 4: long-running asyncio services."""
