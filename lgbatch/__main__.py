"""python -m lgbatch."""

from lgbatch.cli.main import main

main()
