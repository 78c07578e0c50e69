"""The leader's side: it sends every standby each change, and knows which of them have everything."""
