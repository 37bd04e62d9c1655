"""Photos: list them in a folder, check their files, decode and resize them, hash them."""
