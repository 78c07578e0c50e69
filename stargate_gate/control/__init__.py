"""The control socket, through which commands on this machine ask the running node; and those commands."""
