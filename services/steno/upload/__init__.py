"""Takes in audio, keeps it, and prepares it for the workers."""
