"""What the documentation claims of speed, measured side by side in one process: `wspace bench`."""
