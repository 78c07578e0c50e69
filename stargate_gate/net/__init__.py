"""What incoming and outgoing connections share: algorithms, places for connections, passes of nodes."""
