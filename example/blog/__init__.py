"""A small blog API: posts in SQLite, migrations, a worker, health and metrics."""
