"""Built-in distillation methods, one per file; kdbench/method.py documents the contract."""
