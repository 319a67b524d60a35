"""Tables of texts, in one format."""
