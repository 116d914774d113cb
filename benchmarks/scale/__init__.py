"""What many gateways and workers carry on PostgreSQL and Redis, each figure with what it must be."""
