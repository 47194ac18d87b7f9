"""Imports into stores, exports from them, and checks them."""
