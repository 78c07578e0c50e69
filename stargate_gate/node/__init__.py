"""Builds one node out of the packages; what a node does when it starts, leads, follows and stops."""
