"""What mdtool measures of itself, each figure beside a baseline of the same run."""
