"""The report of a workspace: one HTML page and one JSON file, made from the workspace's files alone."""
