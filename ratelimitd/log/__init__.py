"""The log: its lines, where they go, and how often a line may repeat."""
