"""What tests are made of: a real PostgreSQL, databases from templates, faults by name, bounded waits."""
