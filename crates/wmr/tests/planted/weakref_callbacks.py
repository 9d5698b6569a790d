# Weak references whose callbacks are forgotten as long as the object lives.
import weakref
class Config(object):
    pass
config = Config()
watchers = []
def watch(n):
    state = ['state %d of %d' % (i, n) for i in range(4)]
    watchers.append(weakref.ref(config, lambda ref, state=state: state.clear()))
for n in range(3000):
    watch(n)
