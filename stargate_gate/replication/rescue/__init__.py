"""What only this node may have: noted, kept before another value replaces it, and brought back on request."""
