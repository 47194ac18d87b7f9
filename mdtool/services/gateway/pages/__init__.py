"""The pages that browsers show, and the third-party files that they load."""
