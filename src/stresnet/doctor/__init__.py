"""The doctor: what is wrong with a set of videos, and what training on it will need, before it costs a day.

Nothing is imported here: the worker processes that examine videos need no torch.
"""
