# Each job's script becomes a module, and stays one.
import sys, types
def run(n):
    module = types.ModuleType("job_%d" % n)
    sys.modules[module.__name__] = module
    exec("rows = list(range(500))\ndef total(): return sum(rows)", module.__dict__)
    return module.total()
for n in range(800):
    run(n)
