"""Work on whole deployments, for operators: import, export, verify. On the shards, while the service serves."""
