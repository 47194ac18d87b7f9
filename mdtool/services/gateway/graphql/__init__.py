"""GraphQL over HTTP and over WebSockets, of the same market as every other protocol."""
