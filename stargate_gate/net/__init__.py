"""What incoming and outgoing connections share: algorithms, addresses, crowding, passes of nodes."""
