"""Models as Hugging Face's library transformers builds them: what a config.json says, in its own words."""
