"""The leader's side: it tells every standby each change, and knows which of them hold everything."""
