"""Models as Hugging Face's library transformers runs them, on the sizes-only operations.

Written after the library's own files, function for function, so that a reader can hold both side by side. Holds for
the releases in memplan/huggingface/releases.py; each file names the one of the library that it follows.
"""
