# Clean-up is asked for on an object that lives for ever.
import weakref
class Application(object):
    pass
application = Application()
def upload(n):
    weakref.finalize(application, print, 'upload %d' % n, ['part %d of %d' % (i, n) for i in range(3)])
for n in range(2000):
    upload(n)
