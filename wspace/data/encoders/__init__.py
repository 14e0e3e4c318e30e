"""What frozen encoders share: loading weights, looking before downloading, pictures to batches."""
