"""The only importers of network SDKs: each store is a few verbs, and one behaviour suite holds its fakes to it."""
