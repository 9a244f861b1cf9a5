"""`ratelimitctl replay`: what the configured limits would have refused of the mail that a log tells of."""
