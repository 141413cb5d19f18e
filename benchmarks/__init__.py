"""Scripts that measure, each beside the table that it writes."""
