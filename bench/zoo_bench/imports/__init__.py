"""Finished runs of other programs -> records. What their lines say is read by zoo_bench.adapters."""
