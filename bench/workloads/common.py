"""Prints a workload's ground truth and `ready PID`, then naps until its parent is gone.

WORKLOAD_HOOK names a script to run inside, once ready: what it cost is printed as a second JSON line.
"""
import gc, json, os, sys, time


def _status(*names):
    with open('/proc/self/status') as lines:
        found = dict(line.split(':', 1) for line in lines)
    return [int(found[name].split()[0]) for name in names]


def ready(**truth):
    gc.collect()
    truth['_py'] = sys.version.split()[0]
    parent = os.getppid()
    print(json.dumps(truth))
    print('ready', os.getpid(), flush=True)
    hook = os.environ.get('WORKLOAD_HOOK')
    if hook:
        with open(hook) as f:
            code = compile(f.read(), hook, 'exec')
        with open('/proc/self/clear_refs', 'w') as f:
            f.write('5')  # the peak starts from here
        before, start = _status('VmRSS')[0], time.perf_counter()
        exec(code, {'__name__': '__hook__'})
        wall = time.perf_counter() - start
        after, peak = _status('VmRSS', 'VmHWM')
        print(json.dumps({'wall_s': wall, 'rss_before_kb': before, 'rss_after_kb': after, 'rss_peak_kb': peak}), flush=True)
    while os.getppid() == parent:
        time.sleep(0.01)
