"""Work on whole deployments, for operators: import, export, verify. Straight on the shards, while the service serves."""
