"""Help for asyncio, threads, signals and child processes. Imports no other package of Stargate but errors."""
