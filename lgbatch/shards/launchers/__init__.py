"""Launchers: they have the units of a step done by processes, here or elsewhere. Results come by files alone."""
