"""The service's API: client, wire format, run types."""
