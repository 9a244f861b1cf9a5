"""ratelimitd.toml: the file becomes objects, and every error names its place."""
