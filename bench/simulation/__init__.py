"""The product's own jobs, consumer and reader, run over simulated stores by one seeded scheduler."""
