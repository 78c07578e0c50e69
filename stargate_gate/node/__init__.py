"""Puts the packages together into one node; what a node does when it starts, leads, follows and stops."""
