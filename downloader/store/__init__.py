"""The database: schema, runs, events, views, migrations."""
