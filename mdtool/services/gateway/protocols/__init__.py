"""How clients reach the feeds: one module a protocol."""
