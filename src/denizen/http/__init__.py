"""The HTTP API: one table of routes, served bare on the loop, described by OpenAPI. See DESIGN.md."""
