"""What lies under runs/, records, heartbeats and leases, and the evidence made of them."""
