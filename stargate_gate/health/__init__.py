"""Shows how a node does: checks, the status report, HTTP endpoints, metrics."""
