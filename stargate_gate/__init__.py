"""Stargate: Git over SSH that keeps serving when a machine dies."""

__version__ = "0.2.0"
