"""Helpers that several test rooms share: real nodes, real clients."""
