"""The configuration: ratelimitd.toml becomes objects, and every error names its place in the file."""
