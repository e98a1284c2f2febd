"""hub: channel → history and interests."""
