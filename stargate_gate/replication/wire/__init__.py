"""What leader and standby say to each other: messages, lines on a channel, differences of refs."""
