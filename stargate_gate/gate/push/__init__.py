"""A push: its commands, git's list of refs, git's report, and when it is acknowledged."""
