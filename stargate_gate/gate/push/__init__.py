"""What a push needs beside copying bytes: its commands are read, its report waits for the sync set."""
