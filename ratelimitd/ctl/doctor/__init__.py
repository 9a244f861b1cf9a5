"""`ratelimitctl doctor`: what is wrong with how Postfix asks this service, and how to fix it."""
