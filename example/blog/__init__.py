"""A small blog API: posts in SQLite or PostgreSQL, migrations, a worker, health and metrics."""
