"""Built-in distillation methods, one file each; see kdbench/method.py for the contract."""
