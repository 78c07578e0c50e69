"""The SSH listener: connections before and after the login, channels, and limits of memory and time."""
