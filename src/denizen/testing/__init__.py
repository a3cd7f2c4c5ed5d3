"""The test kit, shipped with the product: throwaway PostgreSQL servers and whole throwaway deployments."""
