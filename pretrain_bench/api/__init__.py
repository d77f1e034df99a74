"""The functions behind `pretrain_bench.*` and the command line: they return values, never print, and raise BenchError kinds."""
