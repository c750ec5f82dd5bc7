"""Boards elsewhere: what a user calls them, the link to one over the system's own ssh, and what one is."""
