"""How it is shown. Data in, text out; a report computes nothing."""
