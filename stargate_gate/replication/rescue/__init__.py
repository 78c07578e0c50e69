"""Values that only this node may have: noted, kept before they are replaced, and restored on request."""
