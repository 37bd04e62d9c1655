"""What units do: extraction of photos and matching of pairs, into stores of one form."""
