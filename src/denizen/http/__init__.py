"""The HTTP API: one table of routes, served bare on granian's RSGI, described by OpenAPI. See DESIGN.md."""
