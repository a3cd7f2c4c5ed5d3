"""The directory: all users, to be searched by name, login name, status, country, attributes and time."""
