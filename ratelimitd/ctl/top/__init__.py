"""`ratelimitctl top`: who sends most in this period, on a terminal or as lines."""
