"""The store that many nodes share, in a database server: what is the same for all servers."""
