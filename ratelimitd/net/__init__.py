"""Sockets: who may connect where, a small HTTP server, the service manager's protocol."""
