"""What the user said: the model, the run, the device. No knowledge of memory here."""
