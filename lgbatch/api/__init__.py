"""What the command line does, as functions for programs; `import lgbatch` names them. The commands call these."""
