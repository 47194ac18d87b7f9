"""GraphQL at `/graphql`: queries over HTTP, and subscriptions over WebSockets."""
