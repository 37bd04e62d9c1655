"""python -m lgbatch."""

from lgbatch.cli import main

main()
