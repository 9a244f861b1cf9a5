"""Real components, started privately: a folder, free ports of 127.0.0.1, and nothing left behind."""
