"""Who leads: the port, the cluster record, terms, and the engines behind the port."""
