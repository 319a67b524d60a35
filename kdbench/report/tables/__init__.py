"""Tables of text in one format."""
