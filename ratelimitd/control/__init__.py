"""The control socket: commands and their answers, in types, and what a running daemon tells of itself."""
