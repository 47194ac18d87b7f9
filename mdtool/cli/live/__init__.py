"""The full-screen terminal view of order books: fed in one thread, drawn in another."""
