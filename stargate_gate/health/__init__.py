"""Shows the state of a node: checks, the status report, HTTP endpoints, metrics."""
