"""Serving: a registered model behind an endpoint."""
