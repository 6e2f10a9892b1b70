"""Export networks to other runtimes, check each export against PyTorch, and quantise."""
