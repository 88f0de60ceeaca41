"""A set looked at before it is trained on: pictures, answers and tokens, what is wrong with them, and a page."""
