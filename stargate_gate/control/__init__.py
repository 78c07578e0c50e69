"""What an operator on this machine asks the running node: the control socket and its commands."""
