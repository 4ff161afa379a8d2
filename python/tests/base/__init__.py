"""The client itself: engine, services, leases and watches."""
