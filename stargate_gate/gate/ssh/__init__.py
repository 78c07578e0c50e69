"""The SSH listener: connections before and after the login, channels, and the memory that they may cost."""
