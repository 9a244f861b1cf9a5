"""The control channel: its commands and answers, its socket, and what a running daemon says about itself."""
