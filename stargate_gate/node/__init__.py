"""The one place that puts the packages together; what a node does because it leads, or follows, or ends."""
