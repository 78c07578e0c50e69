"""The scrub: checks this node's own copies in the background; may import what repos may, and repos."""
