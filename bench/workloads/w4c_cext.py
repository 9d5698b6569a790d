# leaking C extension (leakext.c beside this file; build it for the interpreter that runs this): K leaked malloc(500) + K leaked float + K leaked str (refcount 1, unreachable from any root, not GC tracked)
import sys, common, leakext
K = int(sys.argv[1]) if len(sys.argv) > 1 else 100000
for i in range(K): leakext.leak_malloc(500); leakext.leak_ref()
common.ready(K=K, c_leak_blocks=K, c_leak_bytes=500*K, unreachable_float=K, unreachable_str=K)
