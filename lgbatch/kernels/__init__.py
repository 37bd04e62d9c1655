"""LightGlue layers and heads in C: 8-bit weights and bfloat16 attention for CPUs with AVX-512 VNNI and BF16.

`library` loads the compiled code, `stages` runs exported .npz stages with it.
"""
